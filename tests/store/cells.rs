//! Cells: what one takes nobody else has, nothing is written over what its writer has not seen, and all of it is sealed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tollbridge::keyring::OpenError;
use tollbridge::store::{Cell, Held, LEASE, LeaseOf, StoreError, TokenStore};

use crate::home::{Home, PATIENCE, PREFIX, fixed, key, server, user};
use crate::support::procs;

const STATE: Cell<'_> = Cell::Flow("state-of-a-flow");

/// What lies there.
async fn seen(store: &TokenStore, cell: Cell<'_>) -> Option<Held> {
    store.look_into(cell).await.unwrap()
}

async fn text(store: &TokenStore, cell: Cell<'_>) -> Option<String> {
    seen(store, cell).await.map(|held| held.plain.to_string())
}

pub(crate) async fn of_several_who_take_what_lies_in_a_cell_one_has_it(home: Home) {
    let keys = [key("k1")];
    let stores = [(); 4].map(|()| home.open(&keys));
    for round in 0..10 {
        assert!(stores[0].put_into(STATE, None, &format!("flow {round}")).await.unwrap());
        let held = join_all(stores.iter().map(|store| seen(store, STATE))).await;
        let took = join_all(stores.iter().zip(held.iter().flatten()).map(|(store, held)| store.take(held))).await;
        assert_eq!(took.iter().filter(|took| **took == Ok(true)).count(), 1, "{took:?}");
        assert_eq!(took.len(), stores.len());
        assert_eq!(text(&stores[round % 4], STATE).await, None);
    }
}

pub(crate) async fn a_cell_is_written_over_what_was_seen_alone(home: Home) {
    let keys = [key("k1")];
    let (one, other) = (home.open(&keys), home.open(&keys));
    let (alice, notion) = (user("alice"), server("notion"));
    for cell in [STATE, Cell::Device(&alice, &notion), Cell::ClientOf("issuer", "url"), Cell::Client("id")] {
        assert!(one.put_into(cell, None, "first").await.unwrap());
        assert!(!other.put_into(cell, None, "second").await.unwrap(), "something lies there");
        let first = seen(&other, cell).await.unwrap();
        // The same text is another thing to lie there.
        assert!(one.put_into(cell, Some(&first), "first").await.unwrap());
        assert!(!other.put_into(cell, Some(&first), "second").await.unwrap(), "what was seen is gone");
        assert!(!other.take(&first).await.unwrap(), "what was seen is gone");
        let now = seen(&other, cell).await.unwrap();
        let wrote = join_all([&one, &other].map(|store| store.put_into(cell, Some(&now), "second"))).await;
        assert_eq!(wrote.iter().filter(|wrote| **wrote == Ok(true)).count(), 1, "{wrote:?}");
        assert_eq!(text(&one, cell).await.as_deref(), Some("second"));
        assert!(one.take(&seen(&one, cell).await.unwrap()).await.unwrap());
        assert!(!other.put_into(cell, Some(&now), "third").await.unwrap(), "nothing lies there");
        assert_eq!(text(&other, cell).await, None);
    }
}

pub(crate) async fn a_cell_ends_with_its_time(home: Home) {
    let store = home.open(&[key("k1")]);
    let lasts = Some(Duration::from_secs(1));
    let held = store.put_for(STATE, None, "flow", lasts).await.unwrap().unwrap();
    assert!(store.put_into(Cell::Client("id"), None, "client").await.unwrap());
    let deadline = Instant::now() + PATIENCE;
    while text(&store, STATE).await.is_some() {
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(procs::LOOK).await;
    }
    assert!(!store.take(&held).await.unwrap() && !store.put_into(STATE, Some(&held), "anew").await.unwrap());
    assert!(store.put_into(STATE, None, "anew").await.unwrap(), "there is room for another");
    assert_eq!(text(&store, Cell::Client("id")).await.as_deref(), Some("client"), "which never ends");
}

pub(crate) async fn a_lease_is_its_owner_s_until_it_is_given_back_or_over(home: Home) {
    let (keys, (clock, time)) = ([key("k1")], fixed(1_000));
    let (one, other) = (home.open_at(&keys, clock.clone()), home.open_at(&keys, clock));
    let (alice, bob, notion, linear) = (user("alice"), user("bob"), server("notion"), server("linear"));
    let of = LeaseOf::Connection(&alice, &notion);
    let lease = one.lease(of).await.unwrap().unwrap();
    assert!(one.lease(of).await.unwrap().is_none() && other.lease(of).await.unwrap().is_none());
    let others = [
        LeaseOf::Connection(&bob, &notion),
        LeaseOf::Connection(&alice, &linear),
        LeaseOf::Registration("issuer", "url"),
    ];
    for another in others {
        assert!(other.lease(another).await.unwrap().is_some(), "{another:?}");
    }
    one.give_back(lease).await;
    let first = other.lease(of).await.unwrap().unwrap();
    match &home {
        Home::Redis(redis) => {
            for (name, _) in home.cells().iter().filter(|(name, _)| name.ends_with(":notion")) {
                let key = format!("{PREFIX}:{name}");
                let left: u64 = redis.raw(&["PTTL", &key]).unwrap();
                assert!((1..=20_000).contains(&left), "{left}");
                redis.raw::<()>(&["DEL", &key]).unwrap();
            }
        }
        Home::Embedded(_) => {
            time.fetch_add(LEASE.as_secs() - 1, Ordering::SeqCst);
            assert!(one.lease(of).await.unwrap().is_none());
            time.fetch_add(1, Ordering::SeqCst);
        }
    }
    assert!(one.lease(of).await.unwrap().is_some(), "it is over");
    other.give_back(first).await;
    assert!(other.lease(of).await.unwrap().is_none(), "who comes too late gives nobody's back");
}

pub(crate) async fn a_cell_opens_in_its_place_and_as_it_was(home: Home) {
    let keys = [key("k1")];
    let store = home.open(&keys);
    let cells = [STATE, Cell::Flow("another-state"), Cell::Client("an-id")];
    for cell in cells {
        assert!(store.put_into(cell, None, "what-lies-in-a-cell").await.unwrap());
    }
    let bytes = home.bytes();
    for hidden in ["state-of-a-flow", "another-state", "what-lies-in-a-cell", "an-id"] {
        assert!(memchr::memmem::find(&bytes, hidden.as_bytes()).is_none(), "{hidden} is there in the clear");
    }
    let tampered = || Some(StoreError::Sealed(OpenError::Tampered));
    let stored = home.cells();
    assert_eq!(stored.len(), cells.len());
    // What lies in one of them is put into the others.
    for (name, _) in &stored {
        home.put_cell(name, &stored[0].1);
    }
    let mut opened = 0;
    for cell in cells {
        match store.look_into(cell).await {
            Ok(held) => opened += usize::from(held.is_some()),
            error => assert_eq!(error.err(), tampered()),
        }
    }
    assert_eq!(opened, 1, "where it was");
    for (name, mut value) in stored {
        *value.last_mut().unwrap() ^= 1;
        home.put_cell(&name, &value);
    }
    for cell in cells {
        assert_eq!(store.look_into(cell).await.err(), tampered());
    }
}

pub(crate) async fn cells_outlive_a_change_of_the_sealing_key(home: Home) {
    let (old, new) = (key("k1"), key("k2"));
    let (alice, notion) = (user("alice"), server("notion"));
    let lasting = [Cell::ClientOf("issuer", "url"), Cell::Client("id")];
    let passing = [STATE, Cell::Device(&alice, &notion)];
    let before = home.open(std::slice::from_ref(&old));
    for cell in lasting.into_iter().chain(passing) {
        assert!(before.put_into(cell, None, &format!("{cell:?}")).await.unwrap());
    }
    let rotated = home.open(&[new.clone(), old]);
    assert_eq!(rotated.key_status().await.unwrap().keys["k1"].records, lasting.len());
    assert_eq!(rotated.rotate(None, |left| panic!("{left:?}")).await.unwrap().resealed, lasting.len());
    assert_eq!(rotated.rotate(None, |left| panic!("{left:?}")).await.unwrap().resealed, 0);
    let status = rotated.key_status().await.unwrap();
    assert_eq!((status.keys["k1"].records, status.keys["k2"].records), (0, lasting.len()));
    let alone = home.open(std::slice::from_ref(&new));
    for cell in lasting {
        assert_eq!(text(&alone, cell).await, Some(format!("{cell:?}")), "nothing needs the old key");
    }
    for cell in passing {
        let held = seen(&rotated, cell).await.unwrap();
        assert_eq!(*held.plain, format!("{cell:?}"), "what ends soon is found under the old name");
        assert!(rotated.put_into(cell, Some(&held), "anew").await.unwrap());
        assert_eq!(text(&alone, cell).await.as_deref(), Some("anew"), "and is written under the new one");
        assert!(
            !rotated.take(&held).await.unwrap() && rotated.take(&seen(&rotated, cell).await.unwrap()).await.unwrap()
        );
        assert_eq!(text(&rotated, cell).await, None, "it lies nowhere else");
    }
    assert_eq!(home.cells().len(), lasting.len());
}
