//! The service on the wire.

mod parse;
mod render;
mod status;

use orderflow_proto::orderflow::payment::v1 as wire;
use orderflow_proto::orderflow::payment::v1::payment_service_server::PaymentService;
use tonic::{Request, Response, Status};

use crate::app::{Acquirer, App, Payments};

/// The RPCs of payment-service.
#[derive(Debug)]
pub(crate) struct Rpc<S, A> {
    app: App<S, A>,
}

impl<S: Payments, A: Acquirer> Rpc<S, A> {
    pub(crate) fn new(app: App<S, A>) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl<S: Payments, A: Acquirer> PaymentService for Rpc<S, A> {
    async fn charge(&self, _: Request<wire::ChargeRequest>) -> Result<Response<wire::ChargeResponse>, Status> {
        Err(Status::unimplemented("charge is not there yet"))
    }

    async fn get_payment(
        &self,
        request: Request<wire::GetPaymentRequest>,
    ) -> Result<Response<wire::GetPaymentResponse>, Status> {
        let order_id = parse::order_id(&request.into_inner().order_id)?;
        let payment = self.app.payment(order_id).await.map_err(status::of)?;
        Ok(Response::new(wire::GetPaymentResponse { payment: Some(render::payment(&payment)) }))
    }

    async fn list_payments(
        &self,
        request: Request<wire::ListPaymentsRequest>,
    ) -> Result<Response<wire::ListPaymentsResponse>, Status> {
        let request = request.into_inner();
        let parse::ListPayments { status, before, limit } = parse::list_payments(&request)?;
        // One more than asked for tells whether there is a next page.
        let mut found = self.app.list(status, before, limit + 1).await.map_err(status::of)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next_page_token = match found.last() {
            Some(last) if more => parse::next_page_token(&request, last),
            _ => String::new(),
        };
        let payments = found.iter().map(render::payment).collect();
        Ok(Response::new(wire::ListPaymentsResponse { payments, next_page_token }))
    }
}
