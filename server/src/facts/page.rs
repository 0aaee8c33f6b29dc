//! Pages of lists: `page_size` and an opaque token on the wire.

use thiserror::Error;

/// Most items in one page, whatever is asked for: an answer stays far below the 4 MiB that gRPC clients accept.
pub const MAX_PAGE_SIZE: usize = 1000;

/// The page token was not made by a server of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("malformed page token")]
pub struct PageTokenError;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Items to skip: those up to and with this place.
    pub after: i64,
    /// Most items wanted; the last page may have fewer.
    pub limit: usize,
}

/// One page of a list, and where the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage<T> {
    /// At most as many as were asked for, in the list's own order.
    pub items: Vec<T>,
    /// Leads to the next page; empty if this is the last.
    pub next_page_token: String,
}

impl Page {
    /// The whole list.
    pub const ALL: Page = Page { after: i64::MIN, limit: usize::MAX };

    /// From the wire: a size of 0 (or less) asks for the whole list, and then the token is not read. Source: SPIRE.
    pub fn from_pb(size: i32, token: &str) -> Result<Self, PageTokenError> {
        let Some(size) = usize::try_from(size).ok().filter(|size| *size > 0) else { return Ok(Self::ALL) };
        let after = match token {
            "" => i64::MIN,
            token if token.bytes().all(|b| b.is_ascii_digit()) => token.parse().map_err(|_| PageTokenError)?,
            _ => return Err(PageTokenError),
        };
        //= FLT-S16 server faults: "bounded, or refused by name"
        Ok(Self { after, limit: size.min(MAX_PAGE_SIZE) })
    }

    /// The page of `items`, which come in order of their places and all lie behind [`Page::after`].
    pub fn cut<T>(self, items: impl Iterator<Item = (i64, T)>) -> ListPage<T> {
        let mut items = items.peekable();
        let mut page = Vec::new();
        let mut last = self.after;
        while page.len() < self.limit
            && let Some((place, item)) = items.next()
        {
            last = place;
            page.push(item);
        }
        let next_page_token = if items.peek().is_some() { last.to_string() } else { String::new() };
        ListPage { items: page, next_page_token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= FLT-S16 REG-06 REG-07
    #[test]
    fn reads_tokens_of_64_bits_and_refuses_what_it_never_made() {
        assert_eq!(Page::from_pb(0, "nonsense"), Ok(Page::ALL));
        assert_eq!(Page::from_pb(-1, ""), Ok(Page::ALL));
        assert_eq!(Page::from_pb(5, ""), Ok(Page { after: i64::MIN, limit: 5 }));
        assert_eq!(Page::from_pb(i32::MAX, "4294967297"), Ok(Page { after: 4_294_967_297, limit: MAX_PAGE_SIZE }));
        for bad in ["x", "-1", "+1", " 1", "1 ", "1.0", "9223372036854775808", "1;DROP TABLE entries"] {
            assert_eq!(Page::from_pb(5, bad), Err(PageTokenError), "{bad:?}");
        }
    }

    #[test]
    fn pages_cover_the_list_once_and_the_last_has_no_token() {
        let list: Vec<i64> = (1..=10).collect();
        for size in 1..=11 {
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let page = Page::from_pb(size, &token).expect("own token");
                let behind = list.iter().filter(|i| **i > page.after).map(|i| (*i, *i));
                let page = page.cut(behind);
                assert!(!page.items.is_empty());
                seen.extend(page.items);
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(seen, list, "pages of {size}");
        }
    }
}
