//! The fs-verity digest of a file's content: what `fsverity digest FILE` prints, with its default parameters (SHA-256, blocks of 4096 bytes,
//! no salt).
//!
//! ```text
//!  content ─► blocks, the last one filled up with zeros ─► their hashes, side by side ─► blocks ─► ... ─► one hash: the root
//!  digest = SHA-256(descriptor: version, parameters, size, root)
//! ```
//! Source: Linux, Documentation/filesystems/fsverity.rst, "Merkle tree" and "fs-verity descriptor".

use aws_lc_rs::digest::{SHA256, digest};

/// Bytes of a block, of the content as of hashes.
const BLOCK_BYTES: usize = 1 << LOG_BLOCK_SIZE;
const LOG_BLOCK_SIZE: u8 = 12;
/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;
/// Bytes of `struct fsverity_descriptor`. Source: Linux, fs/verity/fsverity_private.h.
const DESCRIPTOR_BYTES: usize = 256;
const DESCRIPTOR_VERSION: u8 = 1;
/// FS_VERITY_HASH_ALG_SHA256. Source: Linux, include/uapi/linux/fsverity.h.
const HASH_ALGORITHM: u8 = 1;
const SALT_BYTES: u8 = 0;

/// A content that is being read. It holds one unfinished block of each level, whatever the size.
#[derive(Debug, Default)]
pub(super) struct FsVerity {
    /// The content's last bytes, the last hashes of its blocks, the last hashes of their blocks, and so on.
    unfinished: Vec<Vec<u8>>,
    size: u64,
}

impl FsVerity {
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.append(0, bytes);
    }

    /// The digest of all that was read.
    pub fn finish(mut self) -> [u8; 32] {
        let (size, root) = (self.size, self.root());
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        descriptor[..4].copy_from_slice(&[DESCRIPTOR_VERSION, HASH_ALGORITHM, LOG_BLOCK_SIZE, SALT_BYTES]);
        descriptor[8..16].copy_from_slice(&size.to_le_bytes());
        descriptor[16..16 + HASH_BYTES].copy_from_slice(&root);
        sha256(&descriptor)
    }

    fn append(&mut self, level: usize, mut bytes: &[u8]) {
        if self.unfinished.len() == level {
            self.unfinished.push(Vec::with_capacity(BLOCK_BYTES));
        }
        while !bytes.is_empty() {
            let block = &mut self.unfinished[level];
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - block.len()));
            block.extend_from_slice(now);
            bytes = later;
            if block.len() == BLOCK_BYTES {
                self.end_block(level);
            }
        }
    }

    fn end_block(&mut self, level: usize) {
        let block = &mut self.unfinished[level];
        block.resize(BLOCK_BYTES, 0);
        let hash = sha256(block);
        block.clear();
        self.append(level + 1, &hash);
    }

    /// The only hash of the first level that has only one; zeros if nothing was read.
    fn root(&mut self) -> [u8; HASH_BYTES] {
        if self.size == 0 {
            return [0; HASH_BYTES];
        }
        let mut level = 0;
        loop {
            let (block, is_top) = (&self.unfinished[level], level + 1 == self.unfinished.len());
            if let (true, true, Ok(root)) = (level > 0, is_top, block.as_slice().try_into()) {
                return root;
            }
            if !block.is_empty() {
                self.end_block(level);
            }
            level += 1;
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; HASH_BYTES] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use ironroot_text::hex::hex;

    use super::*;

    /// Of the bytes 0 to 250, again and again: how many, and what `fsverity digest` (fsverity-utils 1.5) prints: none, within one block, up
    /// to one level of hashes, up to two, up to three.
    const PRINTED: [(usize, &str); 10] = [
        (0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
        (1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"),
        (4_095, "5f4953aad672b0188023d6cd6fbce9d09508eb7dad165b6298ce0086bc1e72db"),
        (4_096, "13e9b8848ae484a36acb3f3cac0ceb2f7601e96633d15c92f9bd3dd44e492157"),
        (4_097, "b0d074abef4d544404facfab6ba242f6a8ccbde90f1325cd286f3c8aa8d0f8aa"),
        (128 * 4_096, "d82861203d50ae9b60948504a704f35f5118bd229aeb1a22d6dae47b1767c4c4"),
        (128 * 4_096 + 1, "4dc6905041c9c4ee73e13b53f63f5d289c46da359b664a965ead7f8cc4d799d4"),
        (5_000_000, "16a8719d6207b091f7c0fe9501beb2cef2a70e7ead2a141b2835120cac206391"),
        (128 * 128 * 4_096, "196650e8bd05f8516c0ede56deeb4d1ff2be9809dc2d827261db4a7773957567"),
        (128 * 128 * 4_096 + 1, "acba6554fbff4e8b2fc0361086b9e8ed6afbbd3196ade159c0f3e2bf9ecb2ed1"),
    ];

    #[test]
    fn the_digest_is_what_fsverity_digest_prints_in_whatever_pieces_the_content_comes() {
        let content: Vec<u8> = (0..=250).cycle().take(251 * 1024).collect();
        for (size, printed) in PRINTED {
            // Pieces that end within blocks, on their borders, and over several of them; each a multiple of the bytes' period.
            for piece in [251, 251 * 17, content.len()].into_iter().filter(|piece| size / piece < 100_000) {
                let mut verity = FsVerity::default();
                (0..size / piece).for_each(|_| verity.update(&content[..piece]));
                verity.update(&content[..size % piece]);
                assert_eq!(hex(&verity.finish()), printed, "{size} bytes in pieces of {piece}");
            }
        }
    }
}
