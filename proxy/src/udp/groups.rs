//! The datagrams of a batch by whom they concern, without a map and without memory of its own per batch.

/// Places in a batch, each with the number of its owner.
pub(super) struct Groups {
    owners: Vec<Option<u32>>,
    members: Vec<usize>,
    first: usize,
}

impl Groups {
    pub(super) fn new(capacity: usize) -> Self {
        Self { owners: Vec::with_capacity(capacity), members: Vec::with_capacity(capacity), first: 0 }
    }

    /// The next place of the batch belongs to `owner`, or to nobody.
    pub(super) fn push(&mut self, owner: Option<u32>) {
        self.owners.push(owner);
    }

    pub(super) fn clear(&mut self) {
        self.owners.clear();
        self.first = 0;
    }

    /// The next owner and its places in order. Owners come in the order of their first place.
    pub(super) fn take(&mut self) -> Option<(u32, &[usize])> {
        let ahead = self.owners[self.first..].iter().position(Option::is_some)?;
        self.first += ahead;
        let owner = self.owners[self.first]?;
        self.members.clear();
        for (place, entry) in self.owners.iter_mut().enumerate().skip(self.first) {
            if entry.take_if(|entry| *entry == owner).is_some() {
                self.members.push(place);
            }
        }
        Some((owner, &self.members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_once_with_its_owner_in_order() {
        let mut groups = Groups::new(8);
        for owner in [Some(4), None, Some(7), Some(4), Some(7), Some(9)] {
            groups.push(owner);
        }
        assert_eq!(groups.take(), Some((4, &[0, 3][..])));
        assert_eq!(groups.take(), Some((7, &[2, 4][..])));
        assert_eq!(groups.take(), Some((9, &[5][..])));
        assert_eq!(groups.take(), None);
        groups.clear();
        assert_eq!(groups.take(), None);
    }
}
