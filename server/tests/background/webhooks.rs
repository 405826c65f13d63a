//! Webhooks, with a receiver that listens on loopback.

use std::sync::{Arc, Mutex};

use ashlar_openapi::events::Event;
use ashlar_openapi::operations::{
    ChangeWebhook, CreateWebhook, DeleteWebhook, ResendDelivery, RotateWebhookSecret,
};
use ashlar_openapi::webhooks::{
    Delivery, DeliveryFilter, DeliveryState, NewWebhook, Webhook, WebhookChange, WebhookMade,
};
use ashlar_openapi::{Page, ProblemType};
use ashlar_server::app::look_up::Wanted;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::cluster::within;
use crate::life::{Life, body, until};

/// What came to a receiver.
struct Received {
    headers: HeaderMap,
    body: Bytes,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }

    fn event(&self) -> Event {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The signature as a receiver computes it, from nothing but SHA-256.
    fn signature(&self, secret: &str) -> String {
        let mut message = format!("{}.", self.header("Ashlar-Timestamp")).into_bytes();
        message.extend_from_slice(&self.body);
        let mut key = secret.as_bytes().to_vec();
        if key.len() > 64 {
            key = digest(&SHA256, &key).as_ref().to_vec();
        }
        key.resize(64, 0);
        let padded = |pad: u8| key.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
        let inner = digest(&SHA256, &[padded(0x36), message].concat());
        let outer = digest(&SHA256, &[padded(0x5c), inner.as_ref().to_vec()].concat());
        let hex: String = outer.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("v1={hex}")
    }
}

struct Receiver {
    url: String,
    received: mpsc::UnboundedReceiver<Received>,
    /// What it answers.
    status: Arc<Mutex<StatusCode>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (tell, received) = mpsc::unbounded_channel();
        let status = Arc::new(Mutex::new(StatusCode::NO_CONTENT));
        let answers = Arc::clone(&status);
        let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
            let _ = tell.send(Received { headers, body });
            let status = *answers.lock().unwrap();
            async move { (status, [("location", "/elsewhere")]) }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            received,
            status,
        }
    }

    async fn next(&mut self) -> Received {
        within(self.received.recv()).await.unwrap()
    }

    fn answer(&self, status: u16) {
        *self.status.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    fn wanting(&self, name: &str, kinds: &[&str]) -> NewWebhook {
        NewWebhook {
            id: None,
            name: name.parse().unwrap(),
            url: self.url.clone(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            enabled: true,
        }
    }
}

async fn create(life: &Life, new: NewWebhook) -> WebhookMade {
    let caller = Life::caller::<CreateWebhook>();
    body(&life.app.create_webhook(&caller, new).await.unwrap())
}

async fn deliveries(life: &Life, id: Uuid, state: Option<DeliveryState>) -> Vec<Delivery> {
    let filter = DeliveryFilter { state, sort: None };
    let wanted = Wanted {
        limit: 100,
        cursor: None,
    };
    let answer = life.app.list_deliveries(id, &filter, &wanted).await.unwrap();
    body::<Page<Delivery>>(&answer).items
}

/// The only delivery, once it is as wanted.
async fn delivery(life: &Life, id: Uuid, wanted: impl Fn(&Delivery) -> bool) -> Delivery {
    until(async || deliveries(life, id, None).await.pop().filter(&wanted)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_signed_and_in_order_and_only_those_that_are_wanted() {
    let life = Life::busy().await;
    let mut receiver = Receiver::start().await;
    let made = create(&life, receiver.wanting("one", &["volume.", "export.created"])).await;
    for _ in 0..10 {
        life.append("volume.created", 1).await;
        life.append("export.deleted", 1).await;
    }
    life.append("export.created", 1).await;
    let mut numbers = Vec::new();
    for _ in 0..11 {
        let received = receiver.next().await;
        let event = received.event();
        assert_eq!(
            received.header("Ashlar-Signature"),
            received.signature(&made.secret)
        );
        assert_eq!(received.header("Ashlar-Event"), event.kind);
        assert!(received.header("Ashlar-Delivery").parse::<Uuid>().is_ok());
        numbers.push(event.number.0);
    }
    // Number 1 tells that the webhook was made.
    assert_eq!(numbers, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]);
    until(async || {
        let delivered = deliveries(&life, made.webhook.id, Some(DeliveryState::Delivered)).await;
        (delivered.len() == 11).then_some(())
    })
    .await;
    let shown: Webhook =
        ashlar_server::app::webhooks::view(&life.app.webhook(made.webhook.id).await.unwrap()).unwrap();
    assert_eq!(shown.last_event.0, 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_signs_beside_its_follower() {
    let life = Life::busy().await;
    let mut receiver = Receiver::start().await;
    let made = create(&life, receiver.wanting("one", &["volume."])).await;
    let caller = Life::caller::<RotateWebhookSecret>();
    let rotated = life
        .app
        .rotate_webhook_secret(&caller, made.webhook.id)
        .await
        .unwrap();
    let rotated: WebhookMade = body(&rotated);
    assert_ne!(rotated.secret, made.secret);
    assert!(rotated.webhook.former_secret_until.is_some());
    life.append("volume.created", 1).await;
    let received = receiver.next().await;
    let both = format!(
        "{},{}",
        received.signature(&rotated.secret),
        received.signature(&made.secret)
    );
    assert_eq!(received.header("Ashlar-Signature"), both);
    life.database
        .run("update webhooks set previous_secret_until = now() - interval '1 second'")
        .await;
    life.append("volume.created", 1).await;
    let received = receiver.next().await;
    assert_eq!(
        received.header("Ashlar-Signature"),
        received.signature(&rotated.secret)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_tried_again_then_given_up_and_can_be_sent_once_more() {
    let life = Life::busy().await;
    let mut receiver = Receiver::start().await;
    receiver.answer(302);
    let id = create(&life, receiver.wanting("one", &["volume."]))
        .await
        .webhook
        .id;
    life.append("volume.created", 1).await;
    receiver.next().await;
    let waiting = delivery(&life, id, |delivery| delivery.attempts.0 == 1).await;
    assert_eq!(
        (waiting.state, waiting.last_status),
        (DeliveryState::Pending, Some(302)),
        "no redirect is followed"
    );
    assert!(waiting.next_attempt_at.unwrap().0 > waiting.updated_at.0);
    // The time passes.
    let due = "update webhook_deliveries set next_attempt_at = now() where state = 'pending'";
    life.database
        .run("update webhook_deliveries set attempts = 10")
        .await;
    receiver.answer(500);
    for attempts in [11, 12] {
        life.database.run(due).await;
        life.app.catalog.changed();
        let received = receiver.next().await;
        assert_eq!(
            received.header("Ashlar-Delivery"),
            waiting.id.to_string(),
            "it is the same delivery"
        );
        delivery(&life, id, |delivery| delivery.attempts.0 == attempts).await;
    }
    let failed = delivery(&life, id, |delivery| delivery.state == DeliveryState::Failed).await;
    assert_eq!((failed.last_status, failed.next_attempt_at), (Some(500), None));
    receiver.answer(204);
    let caller = Life::caller::<ResendDelivery>();
    let resent = life.app.resend_delivery(&caller, id, failed.id).await.unwrap();
    assert_eq!(body::<Delivery>(&resent).state, DeliveryState::Pending);
    assert_eq!(receiver.next().await.event().number.0, failed.event.0);
    delivery(&life, id, |delivery| delivery.state == DeliveryState::Delivered).await;
    let none = life
        .app
        .resend_delivery(&caller, id, Uuid::new_v4())
        .await
        .unwrap_err();
    assert_eq!(none.kind, ProblemType::NoSuchObject);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_disabled_or_deleted_is_told_nothing_more() {
    let life = Life::busy().await;
    let mut receiver = Receiver::start().await;
    receiver.answer(500);
    let off = create(&life, receiver.wanting("off", &["volume."])).await.webhook;
    let gone = create(&life, receiver.wanting("gone", &["volume."]))
        .await
        .webhook;
    life.append("volume.created", 1).await;
    receiver.next().await;
    receiver.next().await;
    for id in [off.id, gone.id] {
        delivery(&life, id, |delivery| delivery.attempts.0 == 1).await;
    }
    let change = WebhookChange {
        enabled: Some(false),
        ..WebhookChange::default()
    };
    let caller = Life::caller::<ChangeWebhook>();
    life.app
        .change_webhook(&caller, off.id, change, None)
        .await
        .unwrap();
    let caller = Life::caller::<DeleteWebhook>();
    life.app.delete_webhook(&caller, gone.id).await.unwrap();
    life.database
        .run("update webhook_deliveries set next_attempt_at = now()")
        .await;
    // Another one is told of what comes after, by a round that passed the others over.
    receiver.answer(204);
    create(&life, receiver.wanting("on", &["export."])).await;
    life.append("export.created", 1).await;
    assert_eq!(receiver.next().await.event().kind, "export.created");
    assert!(receiver.received.try_recv().is_err());
    assert_eq!(
        deliveries(&life, off.id, None).await.len(),
        1,
        "it misses what happens now"
    );
    let none = life.app.webhook(gone.id).await.unwrap_err();
    assert_eq!(none.kind, ProblemType::NoSuchObject);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_made_once_and_names_are_taken_once() {
    let life = Life::idle().await;
    let receiver = Receiver::start().await;
    let id = Uuid::new_v4();
    let new = NewWebhook {
        id: Some(id),
        ..receiver.wanting("one", &[])
    };
    let made = create(&life, new.clone()).await;
    assert_eq!(
        create(&life, new.clone()).await,
        made,
        "the same request finds what the first one made"
    );
    let caller = Life::caller::<CreateWebhook>();
    let other = NewWebhook {
        name: "other".parse().unwrap(),
        ..new.clone()
    };
    let refused = life.app.create_webhook(&caller, other).await.unwrap_err();
    assert_eq!(refused.kind, ProblemType::IdTaken);
    let refused = life
        .app
        .create_webhook(&caller, receiver.wanting("one", &[]))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind, refused.pointer.as_deref()),
        (ProblemType::NameTaken, Some("/name"))
    );
    let slip = life
        .app
        .create_webhook(&caller, receiver.wanting("two", &["volumes."]))
        .await
        .unwrap_err();
    assert_eq!(slip.pointer.as_deref(), Some("/kinds/0"));
    let stale = life
        .app
        .change_webhook(&caller, id, WebhookChange::default(), Some("\"0\""))
        .await;
    assert_eq!(stale.unwrap_err().kind, ProblemType::Stale);
    let events = life.events().await;
    assert_eq!(events.len(), 1, "nothing was made twice: {events:?}");
    assert!(
        !events[0].data.to_string().contains("hook\""),
        "the path may be a secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_how_it_went() {
    let life = Life::idle().await;
    let mut receiver = Receiver::start().await;
    let made = create(&life, receiver.wanting("one", &[])).await;
    let probed = life.app.probe_webhook(made.webhook.id).await.unwrap();
    assert_eq!(
        (probed.delivered, probed.status, probed.error),
        (true, Some(204), None)
    );
    let received = receiver.next().await;
    assert_eq!(
        received.header("Ashlar-Signature"),
        received.signature(&made.secret)
    );
    assert_eq!(received.event().kind, "webhook.probe");
    receiver.answer(404);
    let probed = life.app.probe_webhook(made.webhook.id).await.unwrap();
    assert_eq!((probed.delivered, probed.status), (false, Some(404)));
    // Nobody listens there: the port was somebody's just now.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let nowhere = NewWebhook {
        url: format!("http://{free}/secret-path"),
        ..receiver.wanting("nowhere", &[])
    };
    let nowhere = create(&life, nowhere).await.webhook;
    let probed = life.app.probe_webhook(nowhere.id).await.unwrap();
    assert_eq!((probed.delivered, probed.status), (false, None));
    assert!(!probed.error.unwrap().contains("secret-path"));
}
