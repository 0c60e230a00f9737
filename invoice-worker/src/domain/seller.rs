/// Lines in the head of an invoice at most.
pub(crate) const SELLER_LINES_MAX: usize = 7;

/// Characters of such a line at most.
pub(crate) const SELLER_LINE_CHARS_MAX: usize = 60;

/// Who sells: a name, and the lines of the address below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seller {
    /// The name of the shop.
    pub(crate) name: String,
    /// Address, tax number and the like.
    pub(crate) address: Vec<String>,
}

/// Why a seller was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {SELLER_LINES_MAX} lines of 1 to {SELLER_LINE_CHARS_MAX} characters, with `|` between them")]
pub(crate) struct SellerError;

impl Seller {
    /// Reads lines with `|` between them.
    pub(crate) fn parse(text: &str) -> Result<Self, SellerError> {
        let lines: Vec<String> = text.split('|').map(|line| line.trim().to_owned()).collect();
        let fits = |line: &String| (1..=SELLER_LINE_CHARS_MAX).contains(&line.chars().count());
        if lines.len() > SELLER_LINES_MAX || !lines.iter().all(fits) {
            return Err(SellerError);
        }
        let mut lines = lines.into_iter();
        let name = lines.next().ok_or(SellerError)?;
        Ok(Self { name, address: lines.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seller_is_a_few_short_lines() {
        let seller = Seller::parse("Shop | 1 Street|Town").unwrap();
        assert_eq!((seller.name.as_str(), seller.address), ("Shop", vec!["1 Street".to_owned(), "Town".to_owned()]));
        let longest = vec!["ö".repeat(SELLER_LINE_CHARS_MAX); SELLER_LINES_MAX].join("|");
        assert!(Seller::parse(&longest).is_ok());
        for wrong in ["", "Shop||Town", &format!("{longest}|x"), &"x".repeat(SELLER_LINE_CHARS_MAX + 1)] {
            assert_eq!(Seller::parse(wrong), Err(SellerError), "{wrong}");
        }
    }
}
