//! The service as its callers see it, within a mesh of its own.

use serde::Deserialize;
use synego_sdk::testing::{Mesh, TestMesh};
use synego_sdk::{Channel, Code, Error};
use tokio_stream::StreamExt;

use crate::shop::inventory_client::InventoryClient;
use crate::shop::{Delivery, ReserveStock, StockQuestion};

type Outcome = Result<(), Error>;

#[derive(Deserialize)]
struct Answer {
    left: u32,
    price_cents: u64,
    instance: String,
}

async fn start() -> Result<(Mesh, InventoryClient<Channel>), Error> {
    let mesh = TestMesh::new().service(crate::service()).start().await?;
    let stub = InventoryClient::new(mesh.client().channel("inventory"));
    Ok((mesh, stub))
}

fn order(sku: &str, quantity: u32) -> ReserveStock {
    ReserveStock { sku: sku.to_owned(), quantity }
}

#[tokio::test]
async fn what_is_reserved_over_grpc_is_gone_over_http() -> Outcome {
    let (mesh, mut stub) = start().await?;
    let before: Answer = mesh.get("http://inventory/api/stock/tea-green").await?.json().await?;
    let reserved = stub.reserve(order("tea-green", 7)).await?.into_inner();
    let after: Answer = mesh.get("http://inventory/api/stock/tea-green").await?.json().await?;
    assert_eq!((reserved.left, after.left), (before.left - 7, before.left - 7));
    assert_eq!((reserved.price_cents, reserved.instance.as_str()), (after.price_cents, "inventory-1"));
    assert_eq!(after.instance, "inventory-1");
    mesh.stop().await
}

#[tokio::test]
async fn a_reservation_that_cannot_be_kept_takes_nothing() -> Outcome {
    let (mesh, mut stub) = start().await?;
    let cases = [
        ("pot-glass", 13, Code::FailedPrecondition, "out_of_stock"),
        ("pot-clay", 1, Code::NotFound, "unknown_sku"),
        ("pot-glass", 0, Code::InvalidArgument, "invalid_quantity"),
        ("pot-glass", 1001, Code::InvalidArgument, "invalid_quantity"),
    ];
    for (sku, quantity, code, reason) in cases {
        let error = stub.reserve(order(sku, quantity)).await.map(|_| ()).map_err(Error::from);
        let told = error.as_ref().map_err(|error| (error.code(), error.reason_word()));
        assert_eq!(told, Err((code, reason)), "{sku} {quantity}");
    }
    let left: Answer = mesh.get("http://inventory/api/stock/pot-glass").await?.json().await?;
    assert_eq!(left.left, 12);
    mesh.stop().await
}

#[tokio::test]
async fn an_unknown_sku_is_404_over_http() -> Outcome {
    let (mesh, _) = start().await?;
    let answer = mesh.get("http://inventory/api/stock/pot-clay").await?.json::<Answer>().await;
    let told = answer.as_ref().map(|_| ()).map_err(|error| (error.status(), error.reason_word()));
    assert_eq!(told, Err((404, "unknown_sku")));
    mesh.stop().await
}

#[tokio::test]
async fn deliveries_are_summed_and_a_new_sku_is_taken_up() -> Outcome {
    let (mesh, mut stub) = start().await?;
    let deliveries = [("tea-green", 5), ("tea-white", 30), ("tea-white", 10)];
    let deliveries = deliveries.map(|(sku, quantity)| Delivery { sku: sku.to_owned(), quantity });
    let sum = stub.restock(tokio_stream::iter(deliveries)).await?.into_inner();
    assert_eq!((sum.deliveries, sum.pieces), (3, 45));
    let left: Answer = mesh.get("http://inventory/api/stock/tea-white").await?.json().await?;
    assert_eq!(left.left, 40);
    mesh.stop().await
}

#[tokio::test]
async fn questions_are_answered_as_they_come() -> Outcome {
    let (mesh, mut stub) = start().await?;
    let (asks, questions) = tokio::sync::mpsc::channel(1);
    let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
    let ask = async |sku: &str| asks.send(StockQuestion { sku: sku.to_owned() }).await.map_err(Error::foreign);
    ask("tea-black").await?;
    let mut answers = stub.sync(questions).await?.into_inner();
    for (sku, next) in [("tea-black", "honey-acacia"), ("honey-acacia", "tea-mint")] {
        let answer = answers.message().await?.map(|stock| stock.sku);
        assert_eq!(answer.as_deref(), Some(sku));
        // The next question is asked only after the answer to the one before has come.
        ask(next).await?;
    }
    drop(asks);
    let rest: Vec<_> = answers.collect().await;
    assert_eq!(rest.len(), 1);
    mesh.stop().await
}
