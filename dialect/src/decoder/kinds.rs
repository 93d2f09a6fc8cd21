//! The kinds of one event's deltas, in order, without an allocation for the usual few.

use tokenlag_probes::DeltaKind;

/// How many deltas of one event are kept in place.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) enum Kinds {
    Few { kinds: [DeltaKind; FEW], len: usize },
    Many(Vec<DeltaKind>),
}

impl Default for Kinds {
    fn default() -> Self {
        Self::Few {
            kinds: [DeltaKind::Content; FEW],
            len: 0,
        }
    }
}

impl Kinds {
    pub(super) fn push(&mut self, kind: DeltaKind) {
        match self {
            Self::Few { kinds, len } if *len < FEW => {
                kinds[*len] = kind;
                *len += 1;
            }
            Self::Few { kinds, .. } => {
                let mut many = kinds.to_vec();
                many.push(kind);
                *self = Self::Many(many);
            }
            Self::Many(many) => many.push(kind),
        }
    }

    pub(super) fn push_if(&mut self, there: bool, kind: DeltaKind) {
        if there {
            self.push(kind);
        }
    }

    /// A copy, where none needs an allocation.
    pub(super) fn few(&self) -> Option<Self> {
        match *self {
            Self::Few { kinds, len } => Some(Self::Few { kinds, len }),
            Self::Many(_) => None,
        }
    }

    pub(super) fn as_slice(&self) -> &[DeltaKind] {
        match self {
            Self::Few { kinds, len } => &kinds[..*len],
            Self::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_step_to_the_heap() {
        let mut kinds = Kinds::default();
        let want: Vec<_> = [DeltaKind::Content, DeltaKind::Tool, DeltaKind::Reasoning]
            .into_iter()
            .cycle()
            .take(3 * FEW)
            .collect();
        for (index, &kind) in want.iter().enumerate() {
            assert_eq!(kinds.as_slice(), &want[..index]);
            kinds.push(kind);
        }
        assert_eq!(kinds.as_slice(), want);
    }
}
