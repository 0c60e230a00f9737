//! Where orders are placed.

use std::sync::Arc;
use std::time::Duration;

use orderflow_proto::orderflow::order::v1::order_service_client::OrderServiceClient;
use orderflow_proto::orderflow::order::v1::{CancelOrderRequest, Order, PlaceOrderRequest};
use tonic::Status;
use tonic::transport::Channel;

use super::{CONNECTIONS, Error};
use crate::audit::channel;
use crate::place;

/// Takes orders. Cheap to clone.
pub(super) trait Shop: Clone + Send + 'static {
    /// Places an order.
    fn place(&self, number: u64, request: PlaceOrderRequest) -> impl Future<Output = Result<Order, Status>> + Send;

    /// Cancels an order.
    fn cancel(&self, number: u64, order_id: String) -> impl Future<Output = Result<(), Status>> + Send;
}

/// order-service, over several connections that take turns.
#[derive(Clone, Debug)]
pub(super) struct OrderService {
    clients: Arc<[OrderServiceClient<Channel>]>,
    patience: Duration,
}

impl OrderService {
    /// Connects when the first order is placed.
    pub(super) fn new(url: &str, patience: Duration) -> Result<Self, Error> {
        let clients: Result<Vec<_>, _> = (0..CONNECTIONS).map(|_| channel(url).map(OrderServiceClient::new)).collect();
        Ok(Self { clients: clients?.into(), patience })
    }

    fn client(&self, number: u64) -> OrderServiceClient<Channel> {
        let turn = usize::try_from(number).unwrap_or(usize::MAX) % self.clients.len();
        self.clients[turn].clone()
    }
}

impl Shop for OrderService {
    async fn place(&self, number: u64, request: PlaceOrderRequest) -> Result<Order, Status> {
        place::place(self.client(number), request, self.patience).await
    }

    async fn cancel(&self, number: u64, order_id: String) -> Result<(), Status> {
        let ask = || {
            let (mut client, request) = (self.client(number), CancelOrderRequest { order_id: order_id.clone() });
            async move { client.cancel_order(request).await }
        };
        place::patiently(self.patience, ask).await.map(drop)
    }
}
