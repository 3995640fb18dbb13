//! gRPC `shop.v1.Inventory`: reserve, restock, and questions answered as they come.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use synego_sdk::tonic::service::Routes;
use synego_sdk::tonic::{self, Request, Response, Status, Streaming};
use synego_sdk::{Ctx, Error, axum};
use tokio_stream::Stream;

use crate::shop::inventory_server::{Inventory, InventoryServer};
use crate::shop::{Delivery, ReserveStock, Restocked, Stock, StockQuestion};
use crate::stock::{Shelf, Shelves};

/// The service over these shelves, ready to be served beside HTTP.
pub(crate) fn router(shelves: Arc<Shelves>) -> axum::Router {
    Routes::new(InventoryServer::new(Desk(shelves))).into_axum_router()
}

struct Desk(Arc<Shelves>);

fn stock(sku: String, shelf: Shelf, ctx: &Ctx) -> Stock {
    Stock { sku, left: shelf.left, price_cents: shelf.price_cents, instance: ctx.instance() }
}

#[tonic::async_trait]
impl Inventory for Desk {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<Stock, Status>> + Send>>;

    async fn reserve(&self, request: Request<ReserveStock>) -> Result<Response<Stock>, Status> {
        let ctx = Ctx::of(&request)?;
        let ReserveStock { sku, quantity } = request.into_inner();
        let reserved = self.0.reserve(&sku, quantity);
        let refused = reserved.as_ref().err().map(Error::reason_word);
        tracing::info!(sku, quantity, refused, "reserve");
        Ok(Response::new(stock(sku, reserved?, &ctx)))
    }

    async fn restock(&self, request: Request<Streaming<Delivery>>) -> Result<Response<Restocked>, Status> {
        let mut incoming = request.into_inner();
        let mut sum = Restocked::default();
        while let Some(delivery) = incoming.message().await? {
            self.0.add(&delivery.sku, delivery.quantity)?;
            sum.deliveries += 1;
            sum.pieces += u64::from(delivery.quantity);
        }
        tracing::info!(deliveries = sum.deliveries, pieces = sum.pieces, "restocked");
        Ok(Response::new(sum))
    }

    async fn sync(&self, request: Request<Streaming<StockQuestion>>) -> Result<Response<Self::SyncStream>, Status> {
        let ctx = Ctx::of(&request)?;
        tracing::info!("sync begins");
        let (shelves, asker) = (self.0.clone(), ctx.clone());
        let answers = request.into_inner().map(move |question| {
            let sku = question?.sku;
            let shelf = shelves.find(&sku)?;
            Ok(stock(sku, shelf, &asker))
        });
        // A drain lets the asker go on elsewhere instead of waiting for it.
        let end = Box::pin(async move { ctx.draining().await });
        Ok(Response::new(Box::pin(answers.take_until(end))))
    }
}
