use super::bells::Bells;
use super::*;

fn customer(id: &str) -> CustomerId {
    CustomerId::parse(id).unwrap()
}

#[test]
fn watches_are_limited_and_give_their_places_back() {
    let bells = Arc::<Bells>::default();
    let (ada, bob) = (customer("ada"), customer("bob"));
    let mut listeners: Vec<_> = (1..WATCHES_MAX).map(|_| bells.hear(&ada).unwrap()).collect();
    listeners.push(bells.hear(&bob).unwrap());
    assert!(bells.hear(&bob).is_none());
    listeners.pop();
    listeners.push(bells.hear(&ada).unwrap());
    listeners.clear();
    assert!(bells.is_empty());
}

#[tokio::test]
async fn a_ring_before_the_listening_is_not_lost_and_one_before_the_silence_is() {
    let bells = Arc::<Bells>::default();
    let mut bell = bells.hear(&customer("ada")).unwrap();
    bell.silence();
    bells.ring(&customer("ada"));
    bell.rung().await;
    bells.ring(&customer("ada"));
    bell.silence();
    bells.ring(&customer("bob"));
    let rung = tokio::spawn(async move { bell.rung().await });
    tokio::task::yield_now().await;
    assert!(!rung.is_finished());
    bells.ring(&customer("ada"));
    rung.await.unwrap();
}
