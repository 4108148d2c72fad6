//! Sorting by a number.
//!
//! The library's sort is compiled anew, in some four kilobytes, for each type that it
//! is used with. Where a number says the order, the numbers are sorted, and what they
//! stand for is moved.

/// Sorts by the number of each, the lowest first; equal ones stay as they were.
pub fn by_number<T>(items: &mut [T], number: impl Fn(&T) -> u64) {
    let mut order: Vec<(u64, usize)> = items.iter().map(number).zip(0..).collect();
    order.sort_unstable();
    for place in 0..order.len() {
        // What is to come here may have been moved, once or more often.
        let mut from = order[place].1;
        while from < place {
            from = order[from].1;
        }
        order[place].1 = from;
        items.swap(place, from);
    }
}

/// The number that has the opposite place.
pub fn descending(number: impl Into<u64>) -> u64 {
    !number.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_library_sorts(numbers in prop::collection::vec(0_u64..20, 0..60)) {
            let mut ours: Vec<(u64, usize)> = numbers.iter().copied().zip(0..).collect();
            let mut theirs = ours.clone();
            by_number(&mut ours, |(number, _)| *number);
            theirs.sort_by_key(|(number, _)| *number);
            prop_assert_eq!(&ours, &theirs);
            by_number(&mut ours, |(number, _)| descending(*number));
            theirs.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
            prop_assert_eq!(ours, theirs);
        }
    }
}
