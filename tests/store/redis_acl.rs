//! The user with the least rights: every right of the documented one is needed, and one that is missing is named.
//! The suite of every store runs as that user.

use std::sync::Arc;

use tollbridge::clock::{Clock, UnixTime};
use tollbridge::store::{MAX_SESSIONS, Notice, StoreError, TokenStore};

use crate::home::{
    PATIENCE, PREFIX, Seen, Tokens as _, found, key, look, redis_kind_within, ring, secret, server, user,
};
use crate::redis_server::RedisServer;
use crate::sessions::session;
use crate::support::{as_documented_user, documented_user};

/// Rights that the relay needs and the store does not, or that are asked for with replicas alone.
const OF_OTHERS: [&str; 3] = ["+publish", "+subscribe", "+wait"];

/// Uses each kind of what a store keeps; what failed, if anything.
async fn use_all(store: &TokenStore, round: &str) -> Result<(), StoreError> {
    let (alice, notion) = (user("alice"), server("notion"));
    let nonce = |n: usize| format!("{round}-{n}");
    for token in ["ntn_1", "ntn_2"] {
        store.set(&alice, &notion, &secret(token)).await?;
        if let Seen::Failed(error) = look(store, &alice, "notion").await {
            return Err(error);
        }
        store.used(&alice, &notion, 1).await;
    }
    store.overview(&alice).await?;
    for n in 0..=MAX_SESSIONS {
        store.subscribe(&session(&nonce(n)), "a://").await?;
    }
    store.unsubscribe(&session(&nonce(1)), "a://").await?;
    store.revoke(&session(&nonce(1))).await?;
    store.session_state(&session(&nonce(2))).await?;
    store.session_status(&session(&nonce(2))).await?;
    store.mark_ended("browser", UnixTime(Clock::System.now().0 + 9)).await?;
    store.is_ended("browser").await?;
    store.list(None).await?;
    store.check_writes().await?;
    store.delete(&alice, &notion).await?;
    for notice in store.check_policy().await? {
        match notice {
            Notice::NotChecked(error) => return Err(error),
            Notice::PersistenceUnknown => return Err(StoreError::Forbidden("+config|get")),
            Notice::NotPersistent => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_right_of_the_documented_user_is_needed_and_one_that_is_missing_is_named() {
    let redis = RedisServer::start(&["--appendonly", "no"]);
    let user = documented_user(PREFIX);
    redis.raw::<()>(&user).unwrap();
    let key = [key("k1")];
    let open = || {
        let kind = redis_kind_within(PATIENCE, as_documented_user(&redis.tcp_url()));
        TokenStore::open(&kind, Arc::new(ring(&key)), Clock::System).unwrap()
    };
    assert_eq!(use_all(&open(), "all").await, Ok(()));
    let rights = user.iter().filter(|rule| rule.starts_with('+') && !OF_OTHERS.contains(&rule.as_str()));
    for right in rights {
        redis.raw::<()>(&["ACL", "SETUSER", "tollbridge", &right.replacen('+', "-", 1)]).unwrap();
        let error = use_all(&open(), right).await.expect_err(right);
        let sentence = format!("the token store refused the command (NOPERM): allow its ACL user {right}");
        assert_eq!(error.to_string(), sentence);
        redis.raw::<()>(&["ACL", "SETUSER", "tollbridge", right]).unwrap();
    }
    redis.raw::<()>(&["ACL", "SETUSER", "tollbridge", "resetkeys", "~other:*"]).unwrap();
    assert_eq!(use_all(&open(), "keys").await, Err(StoreError::Forbidden("~PREFIX:*")));
}

#[tokio::test]
async fn a_user_who_may_not_ask_what_redis_is_may_use_it() {
    let redis = RedisServer::start(&[]);
    redis.raw::<()>(&documented_user(PREFIX)).unwrap();
    redis.raw::<()>(&["ACL", "SETUSER", "tollbridge", "-info"]).unwrap();
    let kind = redis_kind_within(PATIENCE, as_documented_user(&redis.tcp_url()));
    let store = TokenStore::open(&kind, Arc::new(ring(&[key("k1")])), Clock::System).unwrap();
    store.set(&user("alice"), &server("notion"), &secret("ntn_1")).await.unwrap();
    assert_eq!(look(&store, &user("alice"), "notion").await, found("ntn_1"));
    assert_eq!(store.check_policy().await.unwrap(), [Notice::NotChecked(StoreError::Forbidden("+info"))]);
    assert_eq!(store.check().await, Ok(()));
}
