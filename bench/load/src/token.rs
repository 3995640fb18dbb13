//! Asks a master for a join token, as `synego token create` does, and prints it.

use std::path::Path;

use synego_wire::pb::TokenCreateRequest;
use synego_wire::pb::admin_client::AdminClient;
use tonic::transport::Endpoint;

use crate::Outcome;

/// Asks at the Unix socket `admin` of a master.
pub(crate) async fn run(admin: &Path) -> Outcome<()> {
    let channel = Endpoint::from_shared(format!("unix:{}", admin.display()))?.connect().await?;
    let created = AdminClient::new(channel).token_create(TokenCreateRequest::default()).await?.into_inner();
    println!("{}", created.token);
    Ok(())
}
