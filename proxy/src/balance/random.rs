//! Drawing by weight: each index has a chance in proportion to its weight. Pure; chance is passed in.

/// The weights of a list, ready to be drawn from.
#[derive(Debug)]
pub enum Shares {
    /// All weights are equal; how many there are.
    Equal(usize),
    /// Sum of the weights up to and including each.
    Bounds(Box<[usize]>),
}

impl Shares {
    /// From the weights, each at least 1.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Self::Equal(weights.len());
        }
        let bounds = weights.iter().scan(0, |sum, &weight| {
            *sum += weight as usize;
            Some(*sum)
        });
        Self::Bounds(bounds.collect())
    }

    /// Whether all weights are equal.
    #[must_use]
    pub fn are_equal(&self) -> bool {
        matches!(self, Self::Equal(_))
    }

    /// An index; the list must not be empty. `random(n)` gives a uniform number in `0..n`.
    pub fn draw(&self, mut random: impl FnMut(usize) -> usize) -> usize {
        match self {
            Self::Equal(count) => random(*count),
            Self::Bounds(bounds) => {
                let point = random(bounds[bounds.len() - 1]);
                bounds.partition_point(|&bound| bound <= point)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_index_has_exactly_its_weight_of_the_points(weights in prop::collection::vec(1..50u32, 1..8)) {
            let shares = Shares::new(&weights);
            let total: u32 = if shares.are_equal() { u32::try_from(weights.len()).expect("few") } else { weights.iter().sum() };
            let mut counts = vec![0; weights.len()];
            for point in 0..total as usize {
                counts[shares.draw(|n| point % n)] += 1;
            }
            let expected = if shares.are_equal() { vec![1; weights.len()] } else { weights };
            prop_assert_eq!(counts, expected);
        }
    }
}
