//! A service that reads what clients say of themselves: it fetches the bridge's document over https, and nobody registers.

use serde_json::json;

use crate::one_click::{click, leads_to, parameter};
use crate::service::Service;
use crate::support::{Client, Home, Redis, ReverseProxy, certificate, free_address};
use crate::visit::Person;
use crate::{ALICE, config, found};

#[tokio::test]
async fn a_service_reads_the_document_of_the_bridge_and_gives_and_renews_tokens_for_it() {
    let (certificate, addresses) = (certificate(), [free_address(), free_address()]);
    let proxy = ReverseProxy::nginx_with_tls(&addresses, certificate.path());
    let service = Service::believing(&certificate.path().join("ca.pem"), &json!({ "documents": true }));
    let (home, redis) = (Home::new(), Redis::start());
    let public_url = format!("https://localhost:{}", proxy.address().port());
    let nodes = addresses.map(|address| {
        let mut config = config(&home, &redis, &service, &found());
        config["publicUrl"] = json!(public_url);
        config["listen"] = json!(address);
        config["allowedHosts"] = json!(["127.0.0.1", "localhost"]);
        home.serve(config)
    });
    let mut alice = Person::at(nodes[0].address());
    assert_eq!(alice.sign_in("guarded", ALICE).await.status, 303);
    let url = leads_to(&click(&mut alice).await);
    assert_eq!(parameter(&url, "client_id"), Some(format!("{public_url}/oauth/client.json")));
    assert_eq!(parameter(&url, "redirect_uri"), Some(format!("{public_url}/oauth/callback/guarded")));
    let done = alice.get(&service.sign_in(&url, "alice-there").await).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let said = async |node| {
        Client::modern(node, "guarded", Some(ALICE)).call("whoami", json!({})).await.expect("an answer").text()
    };
    assert_eq!(said(&nodes[1]).await, "alice-there read");
    service.set(&json!({ "refuses": 1 })).await;
    assert_eq!(said(&nodes[0]).await, "alice-there read");
    assert_eq!(service.count("token refresh_token 200").await, 1, "it is renewed as the same client");
    let removed = alice.remove("guarded").await;
    assert!(removed.text.contains("has confirmed that it took it back"), "{}", removed.text);
    assert_eq!(service.count("/reg 201").await, 0, "nobody registers");
}
