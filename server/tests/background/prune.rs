//! Forgetting what is old.

use ashlar_openapi::operations::CreateSupportBundle;
use ashlar_server::background::prune::prune;
use time::{Duration, OffsetDateTime};

use crate::life::Life;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_forgotten_and_what_is_unfinished_or_younger_is_not() {
    let life = Life::idle().await;
    life.append("volume.created", 3).await;
    let caller = Life::keyed::<CreateSupportBundle>("k");
    life.app.create_support_bundle(&caller, None).await.unwrap();
    let now = OffsetDateTime::now_utc();
    assert_eq!(prune(&life.app, now + Duration::days(29)).await.unwrap(), 0);
    // Four events; neither the unfinished job nor its young key and audit entry.
    assert_eq!(prune(&life.app, now + Duration::days(31)).await.unwrap(), 4);
    assert!(life.events().await.is_empty());
    assert_eq!(prune(&life.app, now + Duration::days(401)).await.unwrap(), 1);
    life.append("volume.created", 1).await;
    assert_eq!(life.events().await[0].number, 5, "numbers go on");
}
