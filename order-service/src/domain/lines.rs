use super::{CurrencyCode, Money, Sku, ValueError};

/// Lines that an order has at most.
pub(crate) const LINES_MAX: usize = 100;
/// Pieces that a line has at most.
pub(crate) const QUANTITY_MAX: u32 = 10_000;

/// How many pieces of an article: 1 to [`QUANTITY_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantity(u32);

impl Quantity {
    /// Refuses zero and more than [`QUANTITY_MAX`].
    pub(crate) fn new(pieces: u32) -> Result<Self, ValueError> {
        if (1..=QUANTITY_MAX).contains(&pieces) {
            Ok(Self(pieces))
        } else {
            Err(ValueError::Quantity { max: QUANTITY_MAX })
        }
    }

    /// The number of pieces.
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// An article, how many of it, and the price of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderLine {
    /// The article.
    pub(crate) sku: Sku,
    /// How many.
    pub(crate) quantity: Quantity,
    /// The price of one.
    pub(crate) unit_price: Money,
}

/// The lines of one order: 1 to [`LINES_MAX`], in one currency, with a total that fits and is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lines {
    lines: Vec<OrderLine>,
    total: Money,
}

/// Why lines do not make an order. The text reads well behind the name of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinesError {
    /// No line, or too many.
    #[error("must be 1 to {LINES_MAX} lines")]
    Count,
    /// A line is in another currency than the first.
    #[error("must be `{expected}`, the currency of the first line")]
    MixedCurrency {
        /// The line, counted from zero.
        line: usize,
        /// The currency of the first line.
        expected: CurrencyCode,
    },
    /// The total does not fit into 64 bits.
    #[error("add up to more than can be charged")]
    Overflow,
    /// There is nothing to charge.
    #[error("must add up to more than zero")]
    NothingToPay,
}

impl Lines {
    /// Adds the lines up with checked arithmetic.
    pub(crate) fn new(lines: Vec<OrderLine>) -> Result<Self, LinesError> {
        if lines.len() > LINES_MAX {
            return Err(LinesError::Count);
        }
        let expected = lines.first().ok_or(LinesError::Count)?.unit_price.currency();
        if let Some(line) = lines.iter().position(|line| line.unit_price.currency() != expected) {
            return Err(LinesError::MixedCurrency { line, expected });
        }
        let amount_minor = lines
            .iter()
            .try_fold(0_i64, |sum, line| {
                let amount = line.unit_price.amount_minor().checked_mul(i64::from(line.quantity.get()))?;
                sum.checked_add(amount)
            })
            .ok_or(LinesError::Overflow)?;
        if amount_minor == 0 {
            return Err(LinesError::NothingToPay);
        }
        let total = Money::new(expected, amount_minor).map_err(|_| LinesError::Overflow)?;
        Ok(Self { lines, total })
    }

    /// The lines in the order in which they were given.
    pub(crate) fn as_slice(&self) -> &[OrderLine] {
        &self.lines
    }

    /// The sum of quantity times unit price.
    pub(crate) fn total(&self) -> Money {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(quantity: u32, currency: &str, amount_minor: i64) -> OrderLine {
        OrderLine {
            sku: Sku::parse("tea").unwrap(),
            quantity: Quantity::new(quantity).unwrap(),
            unit_price: Money::new(currency.parse().unwrap(), amount_minor).unwrap(),
        }
    }

    #[test]
    fn quantities_are_allowed_up_to_the_limit_and_no_further() {
        assert_eq!(Quantity::new(1).unwrap().get(), 1);
        assert_eq!(Quantity::new(QUANTITY_MAX).unwrap().get(), QUANTITY_MAX);
        assert!(Quantity::new(0).is_err());
        assert!(Quantity::new(QUANTITY_MAX + 1).is_err());
    }

    #[test]
    fn lines_are_allowed_up_to_the_limit_and_no_further() {
        assert_eq!(Lines::new(vec![]), Err(LinesError::Count));
        assert!(Lines::new(vec![line(1, "EUR", 1); LINES_MAX]).is_ok());
        assert_eq!(Lines::new(vec![line(1, "EUR", 1); LINES_MAX + 1]), Err(LinesError::Count));
    }

    #[test]
    fn a_line_in_another_currency_is_named() {
        let lines = vec![line(1, "EUR", 1), line(1, "EUR", 1), line(1, "USD", 1)];
        let expected = "EUR".parse().unwrap();
        assert_eq!(Lines::new(lines), Err(LinesError::MixedCurrency { line: 2, expected }));
    }

    #[test]
    fn an_order_for_nothing_is_refused_but_a_gift_beside_an_article_is_not() {
        assert_eq!(Lines::new(vec![line(3, "EUR", 0)]), Err(LinesError::NothingToPay));
        assert_eq!(Lines::new(vec![line(3, "EUR", 0), line(2, "EUR", 5)]).unwrap().total().amount_minor(), 10);
    }

    #[test]
    fn the_greatest_amount_fits_and_one_more_overflows() {
        assert_eq!(Lines::new(vec![line(1, "EUR", i64::MAX)]).unwrap().total().amount_minor(), i64::MAX);
        assert_eq!(Lines::new(vec![line(1, "EUR", i64::MAX), line(1, "EUR", 1)]), Err(LinesError::Overflow));
        assert_eq!(Lines::new(vec![line(2, "EUR", i64::MAX)]), Err(LinesError::Overflow));
    }

    /// Small prices and prices near the limit, so that both outcomes come up often.
    fn amounts() -> impl Strategy<Value = i64> {
        prop_oneof![0..100_000_i64, 0..=i64::MAX, (i64::MAX / 20_000)..=(i64::MAX / 5_000)]
    }

    proptest! {
        #[test]
        fn the_total_is_exact_or_refused(pairs in prop::collection::vec((1..=QUANTITY_MAX, amounts()), 1..=LINES_MAX)) {
            let exact: i128 = pairs.iter().map(|(quantity, amount)| i128::from(*quantity) * i128::from(*amount)).sum();
            let lines = pairs.iter().map(|(quantity, amount)| line(*quantity, "EUR", *amount)).collect();
            match Lines::new(lines) {
                Ok(lines) => prop_assert_eq!(i128::from(lines.total().amount_minor()), exact),
                Err(LinesError::Overflow) => prop_assert!(exact > i128::from(i64::MAX)),
                Err(LinesError::NothingToPay) => prop_assert_eq!(exact, 0),
                Err(other) => prop_assert!(false, "unexpected: {}", other),
            }
        }
    }
}
