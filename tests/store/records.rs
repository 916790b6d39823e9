//! Records and what is noted and remembered beside them, on every store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tollbridge::clock::UnixTime;
use tollbridge::config::ServerName;
use tollbridge::keyring::{OpenError, Place, Purpose};
use tollbridge::store::{
    About, Lookup, Over, Overview, Quota, Record, RecordKind, Removed, Revision, SavedBy, StoreError, TokenStore,
    Written,
};
use tollbridge::user::UserId;

use crate::home::{Home, Key, Seen, Tokens as _, fixed, found, key, look, name, record, ring, secret, server, user};

/// How far clocks may be apart, seconds.
const CLOCK_ERROR: u64 = 300;

/// Saves a token over whatever is there.
async fn saved(store: &TokenStore, user: &UserId, token: &str) -> Revision {
    match store.save(user, &server("notion"), &record(1_000, &[("token", token)]), Over::Anything).await.unwrap() {
        Written::Done(revision) => revision,
        Written::Changed => panic!("nobody else is there"),
    }
}

pub(crate) async fn a_change_over_a_revision_that_is_gone_changes_nothing(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let (alice, notion) = (user("alice"), server("notion"));
    assert!(store.read(&alice, &notion).await.unwrap().is_none());
    let first = saved(&store, &alice, "ntn_1").await;
    let stored = store.read(&alice, &notion).await.unwrap().unwrap();
    assert_eq!((&stored.revision, &*stored.key_id), (&first, "k1"));
    let second = saved(&store, &alice, "ntn_2").await;
    assert_ne!(first, second);
    let other = record(2_000, &[("token", "ntn_3")]);
    for over in [Over::This(&first), Over::Nothing] {
        assert_eq!(store.save(&alice, &notion, &other, over).await.unwrap(), Written::Changed);
        assert_eq!(store.remove(&alice, &notion, over).await.unwrap(), Removed::Changed);
    }
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_2"));
    let Written::Done(third) = store.save(&alice, &notion, &other, Over::This(&second)).await.unwrap() else {
        panic!("it was there");
    };
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_3"));
    assert_eq!(store.remove(&alice, &notion, Over::This(&third)).await.unwrap(), Removed::Gone);
    for over in [Over::This(&third), Over::Nothing, Over::Anything] {
        assert_eq!(store.remove(&alice, &notion, over).await.unwrap(), Removed::Absent);
    }
    assert_eq!(store.save(&alice, &notion, &other, Over::This(&third)).await.unwrap(), Written::Changed);
    assert!(matches!(store.save(&alice, &notion, &other, Over::Nothing).await.unwrap(), Written::Done(_)));
}

pub(crate) async fn one_of_two_savers_at_once_is_told(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    let (alice, notion) = (user("alice"), server("notion"));
    let mut revision = saved(&one, &alice, "ntn_0").await;
    for round in 1..=20 {
        let [a, b] = ["a", "b"].map(|who| record(1_000, &[("token", &format!("{who}{round}"))]));
        let over = Over::This(&revision);
        let (a, b) = tokio::join!(one.save(&alice, &notion, &a, over), other.save(&alice, &notion, &b, over));
        let (who, done) = match (a.unwrap(), b.unwrap()) {
            (Written::Done(done), Written::Changed) => ("a", done),
            (Written::Changed, Written::Done(done)) => ("b", done),
            neither => panic!("{neither:?}"),
        };
        assert_eq!(look(&one, &alice, "notion").await, found(&format!("{who}{round}")));
        revision = done;
    }
}

/// What the version before this one made with this key: a token of alice's for notion.
const OLDER_KEY: &str = "C9mR15kmNRKe4MJIh0XQNw9u2TASruC7bvWbxtjVEbA";
const OLDER_RECORD: &str = "AQJrMbX9CmsWG9VD3ao63H8mSdAw3wZewQXMgyVXW8SCsSk+O0YVLyCwLdrOvkGppxxFOAye20EH/+T6";

pub(crate) async fn a_record_of_one_unnamed_value_is_one_an_older_node_reads(home: Home) {
    let keys: [Key; 1] = [("k1", OLDER_KEY.to_owned())];
    let store = home.open(&keys);
    let (alice, notion) = (user("alice"), server("notion"));
    let name = name(&keys, &alice);
    let older = BASE64_STANDARD.decode(OLDER_RECORD).unwrap();
    home.put_raw(&name, "notion", &older);
    assert_eq!(look(&store, &alice, "notion").await, found("ntn_of_an_older_node"));
    // An older node knows one format, whose first byte is 1, and one place, at which this is a time and a token.
    let how = Record::token(UnixTime(1_000), SavedBy::Page, secret("ntn_new"));
    assert!(matches!(store.save(&alice, &notion, &how, Over::Anything).await.unwrap(), Written::Done(_)));
    let written = home.raw(&name, "notion").unwrap();
    assert_eq!(written[0], 1);
    let parts = &["record/1", "local", "alice", "notion", "token"];
    let plain = ring(&keys).open(Place { purpose: Purpose::Token, parts }, &written).unwrap();
    assert_eq!(*plain, [&1_000_u64.to_be_bytes()[..], b"ntn_new"].concat());
}

pub(crate) async fn a_record_of_fields_is_foreign_to_an_older_node_and_left_alone(home: Home) {
    let keys = [key("k1")];
    let (store, alice, bob) = (home.open(&keys), user("alice"), user("bob"));
    let values = [("email", "alice@example.com"), ("apiKey", "\"quoted\" \u{e4} \\ <<token>>")];
    let records = [
        Record { saved_by: Some(SavedBy::Api), ..record(1_000, &values) },
        Record { expires_at: Some(UnixTime(9_000)), ..record(1_000, &[("token", "ntn_1")]) },
        Record { kind: RecordKind::OAuth, saved_by: Some(SavedBy::SignIn), ..record(1_000, &[("token", "ntn_1")]) },
        record(1_000, &[("only", "one")]),
    ];
    for (at, record) in records.iter().enumerate() {
        let server = server(&format!("s{at}"));
        store.save(&alice, &server, record, Over::Anything).await.unwrap();
        let raw = home.raw(&name(&keys, &alice), server.as_str()).unwrap();
        // What an older node looks at before it reads or writes over a record.
        assert_eq!(raw[0], 2);
        let Lookup::Found(read, _) = store.lookup(&alice, &server).await else { panic!("{server}") };
        let texts = |record: &Record| {
            let mut texts: Vec<_> = record.fields.iter().map(|(n, v)| (n.clone(), v.expose().to_owned())).collect();
            texts.sort();
            texts
        };
        assert_eq!(texts(&read), texts(record));
        assert_eq!((read.kind, read.saved_at, read.saved_by), (record.kind, record.saved_at, record.saved_by));
        assert_eq!(read.expires_at, record.expires_at);
        // All of it belongs to one place.
        home.put_raw(&name(&keys, &bob), server.as_str(), &raw);
        let tampered = StoreError::Sealed(OpenError::Tampered);
        assert_eq!(look(&store, &bob, server.as_str()).await, Seen::Failed(tampered));
    }
    assert!(!format!("{records:?}").contains("quoted"));
    let bytes = home.bytes();
    assert!(memchr::memmem::find(&bytes, b"alice@example.com").is_none());
    assert!(memchr::memmem::find(&bytes, b"apiKey").is_none());
}

pub(crate) async fn what_does_not_open_is_not_written_over(home: Home) {
    let keys = [key("k1")];
    let (store, alice, notion) = (home.open(&keys), user("alice"), server("notion"));
    let name = name(&keys, &alice);
    let new = record(2_000, &[("token", "ntn_2")]);
    saved(&store, &alice, "ntn_1").await;
    let mut damaged = home.raw(&name, "notion").unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    for (there, why) in
        [(&damaged[..], StoreError::Damaged), (b"\x03of a later year", StoreError::Newer), (b"\x02", StoreError::Newer)]
    {
        home.put_raw(&name, "notion", there);
        for over in [Over::Anything, Over::Nothing] {
            assert_eq!(store.save(&alice, &notion, &new, over).await, Err(why.clone()));
        }
        assert_eq!(home.raw(&name, "notion").unwrap(), there);
        let about = store.overview(&alice).await.unwrap().remove(0).about;
        assert!(matches!(about, Err(StoreError::Sealed(_))), "{about:?}");
    }
    assert_eq!(store.remove(&alice, &notion, Over::Anything).await.unwrap(), Removed::Gone);
    assert!(matches!(store.save(&alice, &notion, &new, Over::Nothing).await.unwrap(), Written::Done(_)));
}

pub(crate) async fn an_overview_says_of_each_record_what_may_be_shown(home: Home) {
    const HOUR: u64 = 3600;
    let keys = [key("k1")];
    let (clock, time) = fixed(5 * HOUR + 1_234);
    let (store, alice) = (home.open_at(&keys, clock), user("alice"));
    let page = Record::token(UnixTime(1_000), SavedBy::Page, secret("ntn_1"));
    let cli = Record {
        saved_by: Some(SavedBy::Cli),
        expires_at: Some(UnixTime(9)),
        ..record(2_000, &[("a", "1"), ("b", "2")])
    };
    for (name, record) in [("notion", &page), ("linear", &cli)] {
        store.save(&alice, &server(name), record, Over::Anything).await.unwrap();
    }
    use_now(&store, &alice, &server("notion")).await;
    store.used(&alice, &server("never-saved"), 1).await;
    let overview = store.overview(&alice).await.unwrap();
    let [linear, notion] = &overview[..] else { panic!("{overview:?}") };
    let about = |record: &Record, server| About {
        saved_at: record.saved_at,
        saved_by: record.saved_by,
        expires_at: record.expires_at,
        grant: None,
        fields: record.fields.iter().map(|(name, _)| name.clone()).collect(),
        fingerprint: store.fingerprint(&alice, &server, &record.fields),
    };
    assert_eq!((linear.server.as_str(), notion.server.as_str()), ("linear", "notion"));
    assert_eq!(linear.about, Ok(about(&cli, server("linear"))));
    assert_eq!(notion.about, Ok(about(&page, server("notion"))));
    assert_eq!((linear.last_used, notion.last_used), (None, Some(UnixTime(5 * HOUR))));
    assert!(!format!("{overview:?}").contains("ntn_1"));
    let fingerprint = |text| store.fingerprint(&alice, &server("notion"), &record(0, &[("token", text)]).fields);
    assert_eq!(fingerprint("ntn_1"), notion.about.as_ref().unwrap().fingerprint);
    assert_ne!(fingerprint("ntn_1"), fingerprint("ntn_2"));
    // As a person is asked for them, and as a record has them.
    let entered = record(0, &[("b", "2"), ("a", "1")]);
    let entered = store.fingerprint(&alice, &server("linear"), &entered.fields);
    assert_eq!(entered, linear.about.as_ref().unwrap().fingerprint, "the audit and the API say the same of a value");
    // How a record was saved is not said of another one, which an older node put in its place without a word.
    let raw = home.raw(&name(&keys, &alice), "notion").unwrap();
    store.set_at(3_000, &alice, &server("notion"), &secret("ntn_2")).await.unwrap();
    let second = home.raw(&name(&keys, &alice), "notion").unwrap();
    home.put_raw(&name(&keys, &alice), "notion", &raw);
    store.save(&alice, &server("notion"), &page, Over::Anything).await.unwrap();
    home.put_raw(&name(&keys, &alice), "notion", &second);
    let overview = store.overview(&alice).await.unwrap();
    let Overview { last_used, about: Ok(about), .. } = &overview[1] else { panic!("{overview:?}") };
    assert_eq!((about.saved_at, about.saved_by), (UnixTime(3_000), None));
    // A record that is replaced was used when its place was.
    assert_eq!(*last_used, Some(UnixTime(5 * HOUR)));
    time.store(6 * HOUR, Ordering::Relaxed);
    use_now(&store, &alice, &server("notion")).await;
    assert_eq!(store.overview(&alice).await.unwrap()[1].last_used, Some(UnixTime(6 * HOUR)));
    // Who lacks a key is told so, and not that there is nothing.
    let stranger = home.open(&[key("k2")]);
    assert_eq!(stranger.overview(&alice).await, Err(StoreError::Sealed(OpenError::UnknownKey)));
}

pub(crate) async fn a_removed_token_takes_its_notes_with_it(home: Home) {
    let keys = [key("k1")];
    let (store, alice) = (home.open(&keys), user("alice"));
    let name = name(&keys, &alice);
    for server_name in ["notion", "linear"] {
        let record = Record::token(UnixTime(1_000), SavedBy::Page, secret("t"));
        store.save(&alice, &server(server_name), &record, Over::Anything).await.unwrap();
        use_now(&store, &alice, &server(server_name)).await;
    }
    let of = |server: &str| [format!("@saved/{server}"), format!("@used/{server}")].to_vec();
    assert_eq!(home.notes(&name), [of("linear"), of("notion")].concat().into_iter().collect());
    store.remove(&alice, &server("notion"), Over::Anything).await.unwrap();
    assert_eq!(home.notes(&name), of("linear").into_iter().collect());
    // Whoever used it until now notes nothing any more.
    home.open(&keys).used(&alice, &server("notion"), 1).await;
    store.remove(&alice, &server("linear"), Over::Anything).await.unwrap();
    assert!(home.notes(&name).is_empty());
    assert_eq!(store.list(None).await.unwrap().unreadable, 0);
}

/// Uses what `user` has saved for `server`, as a request does.
async fn use_now(store: &TokenStore, user: &UserId, server: &ServerName) {
    let Lookup::Found(_, mark) = store.lookup(user, server).await else { return };
    store.used(user, server, mark).await;
}

pub(crate) async fn a_record_in_place_of_one_that_was_removed_is_noted_when_it_is_used(home: Home) {
    let keys = [key("k1")];
    let (clock, _time) = fixed(7 * 3600);
    let (one, other) = (home.open_at(&keys, clock.clone()), home.open_at(&keys, clock));
    let (alice, notion) = (user("alice"), server("notion"));
    for remover in [&one, &other] {
        // The same token in the same second.
        saved(&one, &alice, "ntn_1").await;
        assert_eq!(one.overview(&alice).await.unwrap()[0].last_used, None);
        use_now(&one, &alice, &notion).await;
        assert_eq!(one.overview(&alice).await.unwrap()[0].last_used, Some(UnixTime(7 * 3600)));
        remover.remove(&alice, &notion, Over::Anything).await.unwrap();
    }
}

pub(crate) async fn the_hour_of_use_is_written_once(home: Home) {
    const HOUR: u64 = 3600;
    let keys = [key("k1")];
    let (clock, time) = fixed(7 * HOUR);
    let (one, other) = (home.open_at(&keys, clock.clone()), home.open_at(&keys, clock));
    let (alice, notion) = (user("alice"), server("notion"));
    saved(&one, &alice, "ntn_1").await;
    let written = || home.note(&name(&keys, &alice), "@used/notion");
    assert_eq!(written(), None);
    use_now(&one, &alice, &notion).await;
    let first = written().expect("the first use is noted");
    for second in [1, HOUR - 1] {
        time.store(7 * HOUR + second, Ordering::Relaxed);
        use_now(&one, &alice, &notion).await;
        use_now(&other, &alice, &notion).await;
        // Each write has another nonce.
        assert_eq!(written().as_ref(), Some(&first));
    }
    time.store(8 * HOUR, Ordering::Relaxed);
    use_now(&other, &alice, &notion).await;
    let second = written().unwrap();
    assert_ne!(first, second);
    use_now(&one, &alice, &notion).await;
    assert_eq!(written().unwrap(), second);
    assert_eq!(one.overview(&alice).await.unwrap()[0].last_used, Some(UnixTime(8 * HOUR)));
}

pub(crate) async fn a_use_while_a_record_is_replaced_is_noted(home: Home) {
    const TRIES: usize = 40;
    let store = home.open(&[key("k1")]);
    for number in 0..TRIES {
        let user = user(&format!("alice{number}"));
        saved(&store, &user, "ntn_1").await;
        let use_it = async || {
            // A save makes its notes first, and then writes.
            for _ in 0..number % 8 {
                tokio::task::yield_now().await;
            }
            use_now(&store, &user, &server("notion")).await;
        };
        tokio::join!(saved(&store, &user, "ntn_2"), use_it());
        assert!(store.overview(&user).await.unwrap()[0].last_used.is_some(), "try {number}");
    }
}

pub(crate) async fn a_mark_ends_with_its_time(home: Home) {
    let keys = [key("k1")];
    let (clock, time) = fixed(1_000);
    let (one, other) = (home.open_at(&keys, clock.clone()), home.open_at(&keys, clock));
    assert!(!one.is_ended("nonce-of-alice").await.unwrap());
    one.mark_ended("nonce-of-alice", UnixTime(2_000)).await.unwrap();
    assert!(other.is_ended("nonce-of-alice").await.unwrap());
    assert!(!other.is_ended("nonce-of-bob").await.unwrap());
    let last = 2_000 + CLOCK_ERROR;
    if let Home::Redis(redis) = &home {
        let [key]: [String; 1] = redis.raw(&["KEYS", "*:ended:*"]).unwrap();
        let left: u64 = redis.raw(&["TTL", &key]).unwrap();
        assert!((last - 1_000 - 60..=last - 1_000).contains(&left), "{left}");
        redis.raw::<()>(&["PEXPIRE", &key, "0"]).unwrap();
    } else {
        time.store(last - 1, Ordering::Relaxed);
        assert!(other.is_ended("nonce-of-alice").await.unwrap());
        time.store(last, Ordering::Relaxed);
    }
    assert!(!other.is_ended("nonce-of-alice").await.unwrap());
    assert!(memchr::memmem::find(&home.bytes(), b"nonce-of-alice").is_none());
}

pub(crate) async fn a_quota_is_of_all_nodes_and_of_one_minute(home: Home) {
    let keys = [key("k1")];
    let (clock, time) = fixed(1_000);
    let (one, other) = (home.open_at(&keys, clock.clone()), home.open_at(&keys, clock));
    let alice = ["local", "alice"];
    for count in 0..Quota::Change.most() {
        let store = if count % 2 == 0 { &one } else { &other };
        assert_eq!(store.count(Quota::Change, &alice).await.unwrap(), None, "{count}");
    }
    for store in [&one, &other] {
        let wait = store.count(Quota::Change, &alice).await.unwrap().expect("it is over");
        assert!(wait > Duration::ZERO && wait <= Duration::from_mins(1), "{wait:?}");
    }
    assert_eq!(one.count(Quota::Change, &["local", "bob"]).await.unwrap(), None);
    assert_eq!(one.count(Quota::SignIn, &alice).await.unwrap(), None);
    time.store(1_060, Ordering::Relaxed);
    if let Home::Redis(redis) = &home {
        for key in redis.raw::<Vec<String>>(&["KEYS", "*:quota:*"]).unwrap() {
            assert!((1..=60_000).contains(&redis.raw::<u64>(&["PTTL", &key]).unwrap()));
            redis.raw::<()>(&["PEXPIRE", &key, "0"]).unwrap();
        }
    }
    assert_eq!(one.count(Quota::Change, &alice).await.unwrap(), None);
    assert!(memchr::memmem::find(&home.bytes(), b"alice").is_none());
}
