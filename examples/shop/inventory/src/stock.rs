//! The shelves: how many pieces of each SKU are left, in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use synego_sdk::{Code, Error};

/// What the shop begins with: SKU, pieces, price of one in cents.
const FIRST_STOCK: [(&str, u32, u64); 12] = [
    ("tea-green", 120, 450),
    ("tea-black", 200, 390),
    ("tea-oolong", 48, 720),
    ("tea-mint", 75, 420),
    ("coffee-espresso", 160, 890),
    ("coffee-filter", 140, 790),
    ("coffee-decaf", 30, 850),
    ("cocoa-dark", 64, 560),
    ("cup-stoneware", 36, 1_450),
    ("pot-glass", 12, 3_900),
    ("filter-paper-100", 500, 290),
    ("honey-acacia", 24, 980),
];

/// Price of what arrives under a new SKU, in cents, until somebody sets another.
const FIRST_PRICE: u64 = 500;

/// Most pieces of one reservation.
const MAX_QUANTITY: u32 = 1_000;

/// What is left of one SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shelf {
    /// Pieces.
    pub(crate) left: u32,
    /// Price of one piece; cents.
    pub(crate) price_cents: u64,
}

/// All shelves.
#[derive(Debug)]
pub(crate) struct Shelves(Mutex<BTreeMap<String, Shelf>>);

impl Shelves {
    /// The shelves as the shop opens.
    pub(crate) fn stocked() -> Self {
        let shelves = FIRST_STOCK.map(|(sku, left, price_cents)| (sku.to_owned(), Shelf { left, price_cents }));
        Self(Mutex::new(BTreeMap::from(shelves)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of one SKU.
    ///
    /// Errors: [`Code::NotFound`], `unknown_sku`.
    pub(crate) fn find(&self, sku: &str) -> Result<Shelf, Error> {
        self.lock().get(sku).copied().ok_or_else(|| unknown(sku))
    }

    /// Every SKU with what is left of it, by name.
    pub(crate) fn all(&self) -> Vec<(String, Shelf)> {
        self.lock().iter().map(|(sku, shelf)| (sku.clone(), *shelf)).collect()
    }

    /// Takes pieces, all of them or none; gives what is left.
    ///
    /// Errors: [`Code::InvalidArgument`] for a quantity out of range; [`Code::NotFound`], `unknown_sku`;
    /// [`Code::FailedPrecondition`], `out_of_stock`.
    pub(crate) fn reserve(&self, sku: &str, quantity: u32) -> Result<Shelf, Error> {
        if !(1..=MAX_QUANTITY).contains(&quantity) {
            let message = format!("quantity {quantity} is not 1 to {MAX_QUANTITY}");
            return Err(Error::new(Code::InvalidArgument, message).reason("invalid_quantity"));
        }
        let mut shelves = self.lock();
        let shelf = shelves.get_mut(sku).ok_or_else(|| unknown(sku))?;
        shelf.left = shelf.left.checked_sub(quantity).ok_or_else(|| {
            let message = format!("{quantity} of {sku} wanted, {} left", shelf.left);
            Error::new(Code::FailedPrecondition, message).reason("out_of_stock")
        })?;
        Ok(*shelf)
    }

    /// Adds what arrives; a new SKU gets a shelf.
    ///
    /// Errors: [`Code::InvalidArgument`] for no pieces or no SKU; [`Code::OutOfRange`] for more than a shelf holds.
    pub(crate) fn add(&self, sku: &str, quantity: u32) -> Result<Shelf, Error> {
        if sku.is_empty() || quantity == 0 {
            return Err(Error::new(Code::InvalidArgument, "a delivery has a sku and at least one piece"));
        }
        let mut shelves = self.lock();
        let shelf = shelves.entry(sku.to_owned()).or_insert(Shelf { left: 0, price_cents: FIRST_PRICE });
        let full = || Error::new(Code::OutOfRange, format!("the shelf of {sku} holds no {quantity} more"));
        shelf.left = shelf.left.checked_add(quantity).ok_or_else(full)?;
        Ok(*shelf)
    }

    /// Share of the shelves that are empty, 0 to 1.
    pub(crate) fn empty_share(&self) -> f64 {
        let shelves = self.lock();
        let empty = shelves.values().filter(|shelf| shelf.left == 0).count();
        empty as f64 / shelves.len().max(1) as f64
    }
}

fn unknown(sku: &str) -> Error {
    Error::new(Code::NotFound, format!("no sku `{sku}`")).reason("unknown_sku")
}
