//! `GET /api/stock` and `GET /api/stock/{sku}`.

use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use synego_sdk::{Ctx, Error, Json, Path};

use crate::stock::{Shelf, Shelves};

/// Stock of one SKU, as JSON.
#[derive(Serialize)]
pub(crate) struct Stock {
    sku: String,
    left: u32,
    price_cents: u64,
    instance: String,
}

impl Stock {
    fn new(sku: String, shelf: Shelf, instance: String) -> Self {
        Self { sku, left: shelf.left, price_cents: shelf.price_cents, instance }
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Json<T>, Error>> + Send>>;

/// Every SKU.
pub(crate) fn all(shelves: Arc<Shelves>) -> impl Fn(Ctx) -> Answer<Vec<Stock>> + Clone + Send + Sync + 'static {
    move |ctx| {
        let shelves = shelves.clone();
        Box::pin(async move {
            let stock = shelves.all();
            tracing::info!(skus = stock.len(), "stock listed");
            Ok(Json(stock.into_iter().map(|(sku, shelf)| Stock::new(sku, shelf, ctx.instance())).collect()))
        })
    }
}

/// One SKU; 404 `unknown_sku` when there is none.
pub(crate) fn one(
    shelves: Arc<Shelves>,
) -> impl Fn(Ctx, Path<String>) -> Answer<Stock> + Clone + Send + Sync + 'static {
    move |ctx, Path(sku)| {
        let shelves = shelves.clone();
        Box::pin(async move {
            let found = shelves.find(&sku);
            tracing::info!(sku, left = found.as_ref().map(|shelf| shelf.left).ok(), "stock asked for");
            Ok(Json(Stock::new(sku, found?, ctx.instance())))
        })
    }
}
