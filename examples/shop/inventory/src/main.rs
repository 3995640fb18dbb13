//! The shop's stock: gRPC `shop.v1.Inventory` and `GET /api/stock/{sku}` on one port.

mod grpc;
mod http;
mod stock;

use std::sync::Arc;

use synego_sdk::{Error, Service};

use crate::stock::Shelves;

/// Generated from `examples/shop/proto`; `make gen` writes it anew.
mod shop {
    #![expect(unused_qualifications, unreachable_pub, clippy::allow_attributes, reason = "generated")]
    include!("gen/shop.v1.rs");
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    service().run().await
}

/// The service as it runs in the shop and in the tests.
fn service() -> Service {
    let shelves = Arc::new(Shelves::stocked());
    let figures = shelves.clone();
    Service::new("inventory")
        .version(env!("CARGO_PKG_VERSION"))
        .route("/api/stock")
        .route("/shop.v1.Inventory")
        .handle("GET /api/stock", http::all(shelves.clone()))
        .handle("GET /api/stock/{sku}", http::one(shelves.clone()))
        .load("empty_shelves", move || figures.empty_share())
        .serve(grpc::router(shelves))
}

#[cfg(test)]
mod tests;
