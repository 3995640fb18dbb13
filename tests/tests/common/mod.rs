//! What the tests of the shop share.

use std::path::PathBuf;

use synego_testkit::Mesh;

pub mod shop {
    //! Generated from the shop's `.proto` file.
    #![expect(unused_qualifications, clippy::allow_attributes, reason = "generated")]
    include!("../../../examples/shop/inventory/src/gen/shop.v1.rs");
}

/// The folder of the example.
pub fn shop_folder() -> PathBuf {
    synego_testkit::program::root().join("examples/shop")
}

/// The shop, with every service ready.
pub async fn start_shop() -> Mesh {
    Mesh::start(&shop_folder(), &[]).await
}
