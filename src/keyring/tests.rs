use proptest::prelude::*;

use super::*;

const PLACE: Place<'_> = Place { purpose: Purpose::Token, parts: &["local", "alice", "notion", "token", "1"] };

fn ring(keys: &[(&str, &RootKey)]) -> Keyring {
    Keyring::new(keys.iter().map(|(id, root)| ((*id).to_owned(), root.duplicate())).collect()).unwrap()
}

#[test]
fn what_one_place_sealed_opens_nowhere_else() {
    let ring = Keyring::ephemeral();
    let sealed = ring.seal(PLACE, b"secret");
    assert_eq!(*ring.open(PLACE, &sealed).unwrap(), b"secret");
    let elsewhere: [&[&str]; 5] = [
        &["local", "bob", "notion", "token", "1"],
        &["local", "alice", "linear", "token", "1"],
        &["locala", "lice", "notion", "token", "1"],
        &["local", "alice", "notion", "token1"],
        &["local", "alice", "notion", "token", "1", ""],
    ];
    for parts in elsewhere {
        assert_eq!(ring.open(Place { parts, ..PLACE }, &sealed).unwrap_err(), OpenError::Tampered, "{parts:?}");
    }
}

#[test]
fn what_one_purpose_sealed_opens_for_no_other() {
    let ring = Keyring::ephemeral();
    let sealed = ring.seal(PLACE, b"secret");
    for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != PLACE.purpose) {
        assert_eq!(ring.open(Place { purpose, ..PLACE }, &sealed).unwrap_err(), OpenError::Tampered);
    }
}

#[test]
fn purposes_have_keys_of_their_own() {
    // The label in the associated data would hide a shared key: ask the keys themselves.
    let ring = Keyring::ephemeral();
    let [token, others @ ..] = &ring.keys.load()[0].seals;
    let mut sealed = b"secret".to_vec();
    let nonce = token.seal_in_place_append_tag(Aad::empty(), &mut sealed).unwrap();
    for other in others {
        let nonce = Nonce::from(nonce.as_ref());
        assert!(other.open_in_place(nonce, Aad::empty(), &mut sealed.clone()).is_err());
    }
}

#[test]
fn the_first_key_seals_and_all_open() {
    let (old, new) = (RootKey::random(), RootKey::random());
    let before = ring(&[("old", &old)]).seal(PLACE, b"secret");
    let rotated = ring(&[("new", &new), ("old", &old)]);
    assert_eq!(*rotated.open(PLACE, &before).unwrap(), b"secret");
    let after = rotated.seal(PLACE, b"secret");
    assert_eq!(*ring(&[("new", &new)]).open(PLACE, &after).unwrap(), b"secret");
    assert_eq!(ring(&[("old", &old)]).open(PLACE, &after).unwrap_err(), OpenError::UnknownKey);
    assert_eq!(ring(&[("new", &old)]).open(PLACE, &after).unwrap_err(), OpenError::Tampered);
}

#[test]
fn unknown_formats_and_stumps_are_told_from_tampering() {
    let ring = Keyring::ephemeral();
    let mut sealed = ring.seal(PLACE, b"secret");
    for length in 0..sealed.len() - "secret".len() {
        assert_eq!(ring.open(PLACE, &sealed[..length]).unwrap_err(), OpenError::Format, "{length}");
    }
    assert_eq!((key_id(&sealed), key_id(b"")), (Some("ephemeral"), None));
    sealed[0] = 2;
    assert_eq!(key_id(&sealed), None);
    assert_eq!(ring.open(PLACE, &sealed).unwrap_err(), OpenError::Format);
}

#[test]
fn an_index_has_a_name_per_key_and_none_in_common() {
    let (old, new) = (RootKey::random(), RootKey::random());
    let rotated = ring(&[("new", &new), ("old", &old)]);
    let names: Vec<_> = rotated.index("tokens", &["local", "alice"]).collect();
    assert_eq!(names[1], ring(&[("old", &old)]).index("tokens", &["local", "alice"]).next().unwrap());
    let others = [("tokens", ["locala", "lice"]), ("tokens", ["local", "bob"]), ("revoked", ["local", "alice"])];
    for (label, parts) in others {
        assert!(rotated.index(label, &parts).all(|name| !names.contains(&name)), "{label} {parts:?}");
    }
}

#[test]
fn a_fingerprint_is_short_and_of_the_key_that_seals() {
    let (old, new) = (RootKey::random(), RootKey::random());
    let (before, after) = (ring(&[("old", &old)]), ring(&[("new", &new), ("old", &old)]));
    let of = |ring: &Keyring, value| ring.fingerprint(&["alice", value]);
    assert_eq!(of(&before, "ntn_1"), of(&before, "ntn_1"));
    assert_ne!(of(&before, "ntn_1"), of(&before, "ntn_2"));
    assert_ne!(of(&before, "ntn_1"), of(&after, "ntn_1"));
    assert_eq!(of(&before, "ntn_1").len(), 6);
}

#[test]
fn a_ring_needs_a_key_and_distinct_ids() {
    assert!(matches!(Keyring::new(Vec::new()), Err(KeyError::Empty)));
    let twice = vec![("k".to_owned(), RootKey::random()), ("k".to_owned(), RootKey::random())];
    assert_eq!(Keyring::new(twice).unwrap_err().to_string(), "sealing key \"k\": another key has the same id");
    for id in ["", "a b", &"a".repeat(33)] {
        assert!(Keyring::new(vec![(id.to_owned(), RootKey::random())]).is_err(), "{id}");
    }
}

#[test]
fn a_ring_shows_ids_only() {
    assert_eq!(format!("{:?}", Keyring::ephemeral()), "[\"ephemeral\"]");
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens(plain: Vec<u8>, parts: Vec<String>) {
        let ring = Keyring::ephemeral();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let place = Place { purpose: Purpose::Route, parts: &parts };
        prop_assert_eq!(&*ring.open_text(place, &ring.seal_text(place, &plain)).unwrap(), &plain);
    }

    #[test]
    fn no_flipped_bit_opens(plain: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
        let ring = Keyring::ephemeral();
        let mut sealed = ring.seal(PLACE, &plain);
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(ring.open(PLACE, &sealed).is_err());
    }
}
