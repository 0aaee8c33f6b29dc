//! The entry service for administrators: bounds, masks, filters, pages.

use std::sync::Arc;

use ironroot_api::pb::entry::entry_client::EntryClient;
use ironroot_api::pb::entry::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, CountEntriesRequest, GetEntryRequest,
    ListEntriesRequest, batch_create_entry_response, count_entries_request, list_entries_request,
};
use ironroot_api::pb::types;
use ironroot_lab::deployment::{Server, ServerOptions, TRUST_DOMAIN};
use ironroot_lab::server_client::{ServerClient, SharedServer};
use tonic::Code;
use tonic::transport::Channel;
use types::selector_match::MatchBehavior;

static SERVER: SharedServer = SharedServer::new();

struct Lab {
    entries: EntryClient<Channel>,
    _server: Arc<Server>,
}

async fn lab() -> Lab {
    let server = SERVER.get(&ServerOptions::default());
    let client = ServerClient::new(&server).await;
    Lab { entries: EntryClient::new(client.admin().await), _server: server }
}

impl Lab {
    async fn create(&mut self, entries: Vec<types::Entry>) -> Vec<batch_create_entry_response::Result> {
        let request = BatchCreateEntryRequest { entries, output_mask: None };
        self.entries.batch_create_entry(request).await.expect("answered").into_inner().results
    }

    async fn created(&mut self, entry: types::Entry) -> types::Entry {
        let result = self.create(vec![entry]).await.swap_remove(0);
        assert_eq!(code(&result.status), Code::Ok, "{result:?}");
        result.entry.expect("the new entry")
    }

    async fn list(&mut self, filter: list_entries_request::Filter) -> Vec<String> {
        let request = ListEntriesRequest { filter: Some(filter.clone()), ..Default::default() };
        let listed = self.entries.list_entries(request).await.expect("listed").into_inner().entries;
        let same = count_entries_request::Filter {
            by_spiffe_id: filter.by_spiffe_id,
            by_parent_id: filter.by_parent_id,
            by_selectors: filter.by_selectors,
            by_federates_with: filter.by_federates_with,
            by_hint: filter.by_hint,
            by_downstream: filter.by_downstream,
        };
        let count = self.entries.count_entries(CountEntriesRequest { filter: Some(same) }).await.expect("counted");
        assert_eq!(count.into_inner().count as usize, listed.len(), "count and list agree");
        listed.into_iter().map(|entry| entry.id).collect()
    }
}

fn code(status: &Option<types::Status>) -> Code {
    Code::from(status.as_ref().expect("a status").code)
}

fn spiffe_id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: TRUST_DOMAIN.into(), path: path.into() })
}

fn selector(text: &str) -> types::Selector {
    let (kind, value) = text.split_once(':').expect("type:value");
    types::Selector { r#type: kind.into(), value: value.into() }
}

/// A good entry below a parent that only one test has.
fn entry(parent: &str, path: &str) -> types::Entry {
    types::Entry {
        spiffe_id: spiffe_id(path),
        parent_id: spiffe_id(parent),
        selectors: vec![selector("unix:uid:1")],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_batch_is_answered_item_by_item_and_a_similar_entry_is_shown() {
    let mut lab = lab().await;
    let good = entry("/batch", "/batch/a");
    let bad = types::Entry { dns_names: vec!["not a name".into()], ..entry("/batch", "/batch/b") };
    let chosen = types::Entry { id: "chosen-id".into(), ..entry("/batch", "/batch/c") };
    let taken = types::Entry { id: "chosen-id".into(), ..entry("/batch", "/batch/d") };
    let also_good = entry("/batch", "/batch/e");
    let results = lab.create(vec![good.clone(), bad, good.clone(), chosen, taken, also_good]).await;
    let codes: Vec<Code> = results.iter().map(|result| code(&result.status)).collect();
    use Code::{AlreadyExists, InvalidArgument, Ok};
    assert_eq!(codes, [Ok, InvalidArgument, AlreadyExists, Ok, AlreadyExists, Ok]);
    let first = results[0].entry.as_ref().expect("the new entry");
    assert_eq!(results[2].entry.as_ref(), Some(first), "the entry that was there");
    assert_eq!((first.revision_number, first.created_at > 0, first.id.len()), (0, true, 36));
    assert_eq!(results[3].entry.as_ref().expect("created").id, "chosen-id");
    // Another hint or TTL makes it no other entry; other selectors do.
    let similar = types::Entry { hint: "h".into(), x509_svid_ttl: 7, ..good.clone() };
    let different = types::Entry { selectors: vec![selector("unix:uid:1"), selector("unix:gid:1")], ..good };
    let results = lab.create(vec![similar, different]).await;
    assert_eq!((code(&results[0].status), code(&results[1].status)), (AlreadyExists, Ok));
    assert_eq!(results[0].entry.as_ref().expect("the old one").hint, "", "nothing was changed");
}

type Spoil = fn(&mut types::Entry);

//= WLA-07 ID-10 FLT-A24
#[tokio::test]
async fn each_bound_is_refused_with_a_message_that_names_the_field() {
    let mut lab = lab().await;
    let table: [(Spoil, &str); 26] = [
        (|e| e.spiffe_id = None, "invalid SPIFFE ID: no SPIFFE ID given"),
        (|e| e.spiffe_id = spiffe_id(""), "invalid SPIFFE ID: path is empty"),
        (|e| e.spiffe_id.as_mut().unwrap().trust_domain = "other.example".into(), "trust domain is \"other.example\""),
        (|e| e.spiffe_id = spiffe_id("/spire/agent/x"), "reserved"),
        (|e| e.spiffe_id = spiffe_id("/spire"), "reserved"),
        (|e| e.spiffe_id = spiffe_id(&format!("/{}", "a".repeat(2048))), "invalid SPIFFE ID: longer than 2048"),
        (|e| e.parent_id = None, "invalid parent ID: no SPIFFE ID given"),
        (|e| e.parent_id = spiffe_id(""), "invalid parent ID: path is empty"),
        (|e| e.parent_id.as_mut().unwrap().trust_domain = "other.example".into(), "invalid parent ID: trust domain"),
        (|e| e.selectors.clear(), "selector list is empty"),
        (|e| e.selectors[0].r#type.clear(), "invalid selector"),
        (|e| e.selectors[0].value.clear(), "invalid selector"),
        (|e| e.selectors[0].r#type = "a:b".into(), "invalid selector"),
        (|e| e.selectors = (0..257).map(|n| selector(&format!("unix:uid:{n}"))).collect(), "256 selectors"),
        (|e| e.x509_svid_ttl = -1, "X.509-SVID TTL is negative"),
        (|e| e.jwt_svid_ttl = -1, "JWT-SVID TTL is negative"),
        (|e| e.expires_at = -1, "entry expiry is negative"),
        (|e| e.dns_names = vec!["a..b".into()], "invalid DNS name \"a..b\""),
        (|e| e.dns_names = vec!["a".repeat(64)], "invalid DNS name"),
        (|e| e.dns_names = (0..257).map(|n| format!("n{n}.example")).collect(), "256 DNS names"),
        (|e| e.hint = "h".repeat(1025), "invalid hint"),
        (|e| e.hint = "a\nb".into(), "invalid hint"),
        (|e| e.federates_with = vec!["A.test".into()], "invalid federated trust domain"),
        (|e| (e.store_svid, e.selectors) = (true, vec![selector("a:1"), selector("b:1")]), "store_svid"),
        (|e| e.id = "a/b".into(), "invalid entry ID"),
        (|e| e.id = "i".repeat(256), "invalid entry ID"),
    ];
    for (number, (spoil, why)) in table.into_iter().enumerate() {
        let mut bad = entry("/bounds", "/bounds/x");
        spoil(&mut bad);
        let result = lab.create(vec![bad]).await.swap_remove(0);
        let status = result.status.expect("a status");
        assert_eq!((Code::from(status.code), result.entry), (Code::InvalidArgument, None), "row {number}: {why}");
        assert!(status.message.contains(why), "row {number}: {:?} lacks {why:?}", status.message);
    }
    let filter = list_entries_request::Filter { by_parent_id: spiffe_id("/bounds"), ..Default::default() };
    assert_eq!(lab.list(filter).await, Vec::<String>::new(), "nothing of it was stored");
}

//= ID-01 ID-02 ID-03 ID-05 ID-06 ID-07 ID-08 X509-04
#[tokio::test]
async fn what_could_not_be_done_is_told_in_the_words_of_spires_server() {
    let mut lab = lab().await;
    let federated = types::Entry { federates_with: vec!["other.example".into()], ..entry("/words", "/words/a") };
    let status = lab.create(vec![federated.clone()]).await.swap_remove(0).status.expect("a status");
    let wanted = "failed to create entry: unable to find federated bundle \"spiffe://other.example\"";
    assert_eq!(Code::from(status.code), Code::Internal);
    assert!(status.message.starts_with(wanted), "{}", status.message);
    let stored = lab.created(entry("/words", "/words/a")).await;
    let unknown = types::Entry { id: "nobody".into(), ..entry("/words", "/words/b") };
    let federated = types::Entry { id: stored.id, ..federated };
    let request = BatchUpdateEntryRequest { entries: vec![unknown, federated], ..Default::default() };
    let results = lab.entries.batch_update_entry(request).await.expect("answered").into_inner().results;
    for (result, code, words) in [
        (&results[0], Code::NotFound, "failed to update entry"),
        (&results[1], Code::Internal, "failed to update entry: unable to find federated bundle"),
    ] {
        let status = result.status.as_ref().expect("a status");
        assert_eq!(Code::from(status.code), code);
        assert!(status.message.starts_with(words), "{}", status.message);
    }
    let filter = list_entries_request::Filter { by_parent_id: spiffe_id("/words"), ..Default::default() };
    assert_eq!(lab.list(filter).await.len(), 1, "nothing of it was stored");
}

//= FLT-A24
#[tokio::test]
async fn ids_that_a_lenient_parser_would_repair_are_refused() {
    let mut lab = lab().await;
    for (trust_domain, path) in [
        (TRUST_DOMAIN, "x"),
        (TRUST_DOMAIN, "/"),
        (TRUST_DOMAIN, "/x/"),
        (TRUST_DOMAIN, "//x"),
        (TRUST_DOMAIN, "/a//b"),
        (TRUST_DOMAIN, "/a/../b"),
        (TRUST_DOMAIN, "/./a"),
        (TRUST_DOMAIN, "/a%2fb"),
        (TRUST_DOMAIN, "/a b"),
        (TRUST_DOMAIN, "/a?b"),
        (TRUST_DOMAIN, "/a#b"),
        (TRUST_DOMAIN, "/ü"),
        ("LAB.EXAMPLE", "/x"),
        ("lab.example:443", "/x"),
        ("u@lab.example", "/x"),
        ("spiffe://spiffe://lab.example", "/x"),
        ("spiffe://lab.example/", "/x"),
        ("lab.example/x", "/y"),
        ("", "/x"),
    ] {
        let id = Some(types::Spiffeid { trust_domain: trust_domain.into(), path: path.into() });
        let child = types::Entry { spiffe_id: id.clone(), ..entry("/lenient", "/lenient/x") };
        let below = types::Entry { parent_id: id, ..entry("/lenient", "/lenient/x") };
        for result in lab.create(vec![child, below]).await {
            assert_eq!(code(&result.status), Code::InvalidArgument, "{trust_domain:?} {path:?}: {result:?}");
        }
    }
}

/// As in SPIRE, and in the RPCs of federation here.
#[tokio::test]
async fn a_trust_domain_may_be_written_as_its_spiffe_id_and_is_shown_as_its_name() {
    let mut lab = lab().await;
    let id = |path: &str| Some(types::Spiffeid { trust_domain: format!("spiffe://{TRUST_DOMAIN}"), path: path.into() });
    let asked =
        types::Entry { spiffe_id: id("/with-scheme/x"), parent_id: id("/with-scheme"), ..entry("/with-scheme", "/x") };
    let created = lab.create(vec![asked]).await.remove(0);
    assert_eq!(code(&created.status), Code::Ok, "{created:?}");
    assert_eq!(created.entry.expect("shown").spiffe_id, spiffe_id("/with-scheme/x"));
}

#[tokio::test]
async fn an_update_takes_the_fields_of_its_mask_and_the_answer_shows_those_of_the_other() {
    let mut lab = lab().await;
    let before = lab.created(types::Entry { hint: "old".into(), ..entry("/update", "/update/a") }).await;
    let wish = types::Entry {
        id: before.id.clone(),
        hint: "new".into(),
        x509_svid_ttl: 99,
        admin: true,
        revision_number: 77,
        created_at: 77,
        ..entry("/elsewhere", "/update/b")
    };
    let only_hint = types::EntryMask { hint: true, ..Default::default() };
    let shown = types::EntryMask { hint: true, revision_number: true, ..Default::default() };
    let request =
        BatchUpdateEntryRequest { entries: vec![wish.clone()], input_mask: Some(only_hint), output_mask: Some(shown) };
    let result = lab.entries.batch_update_entry(request).await.expect("answered").into_inner().results.swap_remove(0);
    let expected = types::Entry { id: before.id.clone(), hint: "new".into(), revision_number: 1, ..Default::default() };
    assert_eq!((code(&result.status), result.entry), (Code::Ok, Some(expected)));
    let get = GetEntryRequest { id: before.id.clone(), output_mask: None };
    let stored = lab.entries.get_entry(get.clone()).await.expect("found").into_inner();
    assert_eq!(stored, types::Entry { hint: "new".into(), revision_number: 1, ..before.clone() });

    let nobody = types::Entry { id: "no-such-entry".into(), ..wish.clone() };
    let invalid = types::Entry { spiffe_id: spiffe_id("/spire/x"), ..wish.clone() };
    let entries = vec![wish.clone(), nobody, invalid];
    let request = BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
    let results = lab.entries.batch_update_entry(request).await.expect("answered").into_inner().results;
    let codes: Vec<Code> = results.iter().map(|result| code(&result.status)).collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound, Code::InvalidArgument]);
    let stored = lab.entries.get_entry(get).await.expect("found").into_inner();
    let created_at = before.created_at;
    assert_eq!(stored, types::Entry { revision_number: 2, created_at, ..wish }, "no mask: every field but these");
}

//= FLT-S16
#[tokio::test]
async fn deletions_are_answered_one_by_one_and_batches_have_a_bound() {
    let mut lab = lab().await;
    let there = lab.created(entry("/delete", "/delete/a")).await;
    let ids = vec![there.id.clone(), "no-such-entry".into(), there.id.clone()];
    let results = lab.entries.batch_delete_entry(BatchDeleteEntryRequest { ids: ids.clone() }).await;
    let results = results.expect("answered").into_inner().results;
    assert_eq!(results.iter().map(|r| r.id.clone()).collect::<Vec<_>>(), ids);
    let codes: Vec<Code> = results.iter().map(|result| code(&result.status)).collect();
    assert_eq!(codes, [Code::Ok, Code::NotFound, Code::NotFound]);
    let get = GetEntryRequest { id: there.id, output_mask: None };
    assert_eq!(lab.entries.get_entry(get).await.expect_err("gone").code(), Code::NotFound);
    let nameless = BatchDeleteEntryRequest { ids: vec![String::new()] };
    let status =
        lab.entries.batch_delete_entry(nameless).await.expect("answered").into_inner().results.remove(0).status;
    let status = status.expect("a status");
    assert_eq!((status.code, status.message.as_str()), (Code::InvalidArgument as i32, "missing entry ID"));
    let nameless = GetEntryRequest { id: String::new(), output_mask: None };
    let status = lab.entries.get_entry(nameless).await.expect_err("no ID");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "missing ID"));
    let nothing = BatchUpdateEntryRequest { entries: vec![types::Entry::default()], ..Default::default() };
    let status = lab.entries.batch_update_entry(nothing).await.expect("answered").into_inner().results.remove(0).status;
    assert_eq!(code(&status), Code::InvalidArgument, "{status:?}: what is wrong comes before whether it is there");
    let too_many = BatchDeleteEntryRequest { ids: vec![String::new(); 10_001] };
    let status = lab.entries.batch_delete_entry(too_many).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("10001"), "{status}");
}

#[tokio::test]
async fn a_batch_that_is_too_long_is_told_to_come_as_several() {
    let mut lab = lab().await;
    for (length, counted) in [(10_010, "batch has 10010 items"), (10_100, "request has more than 10016 items")] {
        let ids = vec!["x".to_owned(); length];
        let refused = lab.entries.batch_delete_entry(BatchDeleteEntryRequest { ids }).await.expect_err("too long");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), format!("{counted}: at most 10000 in a batch; send several"));
    }
}

#[tokio::test]
async fn filters_know_four_ways_to_compare_sets() {
    let mut lab = lab().await;
    let parent = "/filters";
    let mut ids = Vec::new();
    for (path, selectors) in [
        ("/filters/a", &["unix:uid:1"][..]),
        ("/filters/ab", &["unix:uid:1", "unix:gid:1"]),
        ("/filters/abc", &["unix:uid:1", "unix:gid:1", "unix:path:/x"]),
        ("/filters/d", &["unix:uid:4"]),
    ] {
        let entry = types::Entry {
            selectors: selectors.iter().map(|s| selector(s)).collect(),
            hint: path.into(),
            downstream: path == "/filters/d",
            ..entry(parent, path)
        };
        ids.push(lab.created(entry).await.id);
    }
    let by = |filter| list_entries_request::Filter { by_parent_id: spiffe_id(parent), ..filter };
    let places = |found: Vec<String>| -> Vec<usize> {
        let place = |id: &String| ids.iter().position(|known| known == id).expect("one of these");
        found.iter().map(place).collect()
    };
    for (how, expected) in [
        (MatchBehavior::MatchExact, vec![1]),
        (MatchBehavior::MatchSubset, vec![0, 1]),
        (MatchBehavior::MatchSuperset, vec![1, 2]),
        (MatchBehavior::MatchAny, vec![0, 1, 2]),
    ] {
        let selectors = vec![selector("unix:gid:1"), selector("unix:uid:1"), selector("unix:uid:1")];
        let selectors = types::SelectorMatch { selectors, r#match: how.into() };
        let filter = list_entries_request::Filter { by_selectors: Some(selectors), ..Default::default() };
        assert_eq!(places(lab.list(by(filter)).await), expected, "{how:?}");
    }
    let filter = list_entries_request::Filter { by_hint: Some("/filters/ab".into()), ..Default::default() };
    assert_eq!(places(lab.list(by(filter)).await), [1]);
    let filter = list_entries_request::Filter { by_downstream: Some(true), ..Default::default() };
    assert_eq!(places(lab.list(by(filter)).await), [3]);
    let filter = list_entries_request::Filter { by_downstream: Some(false), ..Default::default() };
    assert_eq!(places(lab.list(by(filter)).await), [0, 1, 2, 3], "false means any, as in SPIRE");
    let filter = list_entries_request::Filter { by_spiffe_id: spiffe_id("/filters/abc"), ..Default::default() };
    assert_eq!(places(lab.list(by(filter)).await), [2]);
    assert_eq!(places(lab.list(by(Default::default())).await), [0, 1, 2, 3]);
}

//= FLT-S16
#[tokio::test]
async fn filters_that_say_nothing_are_refused_by_name() {
    let mut lab = lab().await;
    let foreign = Some(types::Spiffeid { trust_domain: "other.example".into(), path: "/x".into() });
    let selectors = |selectors, how| Some(types::SelectorMatch { selectors, r#match: how });
    let domains = |trust_domains| Some(types::FederatesWithMatch { trust_domains, r#match: 0 });
    type Filter = list_entries_request::Filter;
    for (filter, why) in [
        (Filter { by_spiffe_id: foreign.clone(), ..Default::default() }, "SPIFFE ID filter: trust domain is"),
        (Filter { by_parent_id: foreign, ..Default::default() }, "parent ID filter: trust domain is"),
        (Filter { by_selectors: selectors(vec![], 0), ..Default::default() }, "selectors filter"),
        (Filter { by_selectors: selectors(vec![selector(":")], 0), ..Default::default() }, "selectors filter"),
        (Filter { by_selectors: selectors(vec![selector("a:b")], 9), ..Default::default() }, "match behaviour 9"),
        (Filter { by_federates_with: domains(vec![]), ..Default::default() }, "federates with filter"),
        (Filter { by_federates_with: domains(vec!["X Y".into()]), ..Default::default() }, "federates with filter"),
    ] {
        let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
        let status = lab.entries.list_entries(request).await.expect_err(why);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{:?} lacks {why:?}", status.message());
    }
}

#[tokio::test]
async fn pages_show_each_entry_once_while_others_come_and_go() {
    let mut lab = lab().await;
    let batch = (0..20).map(|number| entry("/pages", &format!("/pages/{number}"))).collect();
    let all: Vec<String> = lab.create(batch).await.into_iter().map(|r| r.entry.expect("created").id).collect();
    let filter = list_entries_request::Filter { by_parent_id: spiffe_id("/pages"), ..Default::default() };
    let mask = types::EntryMask { spiffe_id: true, ..Default::default() };
    let mut request =
        ListEntriesRequest { filter: Some(filter), output_mask: Some(mask), page_size: 7, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = lab.entries.list_entries(request.clone()).await.expect("a page").into_inner();
        assert!(
            page.entries.len() <= 7 && page.entries.iter().all(|e| e.selectors.is_empty() && e.spiffe_id.is_some())
        );
        seen.extend(page.entries.into_iter().map(|entry| entry.id));
        if seen.len() == 7 {
            // The entry that the token stands for, and one not yet seen.
            let ids = vec![seen[6].clone(), all[10].clone()];
            lab.entries.batch_delete_entry(BatchDeleteEntryRequest { ids }).await.expect("deleted");
            lab.created(entry("/pages", "/pages/late")).await;
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let mut expected = all.clone();
    expected.remove(10);
    assert_eq!(seen[..19], expected);
    assert_eq!(seen.len(), 20, "and the late one at the end");
    for bad in ["x", "-1", "99999999999999999999", "1 OR 1=1"] {
        request.page_token = bad.into();
        let status = lab.entries.list_entries(request.clone()).await.expect_err(bad);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "malformed page token"));
    }
}

/// System calls with which the server has written so far.
fn writes(server: &mut Server) -> u64 {
    let pid = server.process().expect("running").pid();
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("its counters");
    let line = io.lines().find_map(|line| line.strip_prefix("syscw: ")).expect("a line");
    line.parse().expect("a number")
}

#[tokio::test]
async fn the_updates_and_deletions_of_a_batch_share_commits_as_creations_do() {
    let mut server = Server::start(&ServerOptions::default());
    let mut entries = EntryClient::new(ServerClient::new(&server).await.admin().await);
    let all: Vec<_> =
        (0..1000).map(|n| types::Entry { id: format!("e{n}"), ..entry("/group", &format!("/w/{n}")) }).collect();
    let ids: Vec<String> = all.iter().map(|entry| entry.id.clone()).collect();
    let before = writes(&mut server);
    let create = BatchCreateEntryRequest { entries: all.clone(), output_mask: None };
    let created = entries.batch_create_entry(create).await.expect("answered").into_inner().results;
    let after_creation = writes(&mut server);
    let changed = all.into_iter().map(|entry| types::Entry { hint: "new".into(), ..entry }).collect();
    let update = BatchUpdateEntryRequest { entries: changed, ..Default::default() };
    let updated = entries.batch_update_entry(update).await.expect("answered").into_inner().results;
    let after_update = writes(&mut server);
    let deleted = entries.batch_delete_entry(BatchDeleteEntryRequest { ids: ids.clone() }).await;
    let deleted = deleted.expect("answered").into_inner().results;
    let after_deletion = writes(&mut server);
    assert!(created.iter().all(|result| code(&result.status) == Code::Ok));
    assert!(updated.iter().all(|result| result.entry.as_ref().is_some_and(|entry| entry.hint == "new")));
    assert!(deleted.iter().all(|result| code(&result.status) == Code::Ok));
    assert!(deleted.iter().map(|result| &result.id).eq(&ids), "in the order that was asked for");
    let spent = [after_creation - before, after_update - after_creation, after_deletion - after_update];
    println!("writes for 1000 entries created, updated, deleted: {spent:?}");
    let [creation, update, deletion] = spent;
    assert!(update < 2 * creation && deletion < 2 * creation, "{spent:?}");
}

#[tokio::test]
async fn a_batch_is_done_in_its_order_however_long_it_is() {
    let server = Server::start(&ServerOptions::default());
    let mut entries = EntryClient::new(ServerClient::new(&server).await.admin().await);
    let all: Vec<_> =
        (0..300).map(|n| types::Entry { id: format!("e{n}"), ..entry("/group", &format!("/w/{n}")) }).collect();
    let hint = |hint: &str| {
        let hinted = all.iter().map(|entry| types::Entry { hint: hint.into(), ..entry.clone() });
        hinted.collect::<Vec<_>>()
    };
    // The same entry under another ID, 300 places on: the first one is there when the second comes.
    let creations =
        [all.clone(), all.iter().map(|e| types::Entry { id: format!("{}-again", e.id), ..e.clone() }).collect()];
    let create = BatchCreateEntryRequest { entries: creations.concat(), output_mask: None };
    let created = entries.batch_create_entry(create).await.expect("answered").into_inner().results;
    let (first, second) = created.split_at(all.len());
    assert!(first.iter().all(|result| code(&result.status) == Code::Ok));
    assert!(second.iter().all(|result| code(&result.status) == Code::AlreadyExists));
    let update = BatchUpdateEntryRequest { entries: [hint("first"), hint("last")].concat(), ..Default::default() };
    let updated = entries.batch_update_entry(update).await.expect("answered").into_inner().results;
    assert!(updated.iter().all(|result| code(&result.status) == Code::Ok));
    let stored = entries.list_entries(ListEntriesRequest::default()).await.expect("listed").into_inner().entries;
    assert_eq!(stored.len(), all.len());
    let late: Vec<_> = stored.iter().filter(|entry| entry.hint != "last").map(|entry| &entry.id).collect();
    assert!(late.is_empty(), "the earlier change of {late:?} was done last");
}
