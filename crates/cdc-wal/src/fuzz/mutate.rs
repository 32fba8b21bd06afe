//! Mutation of inputs, decided by one seed.

/// A source of mutated inputs. The same name gives the same inputs.
pub(super) struct Mutator {
    state: u64,
}

/// Numbers at which length checks go wrong.
const EDGES: [u32; 10] =
    [0, 1, 4, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF];

impl Mutator {
    pub(super) fn new(name: &str) -> Self {
        // FNV-1a
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        Self { state: name.bytes().fold(0xCBF2_9CE4_8422_2325, step) }
    }

    /// xorshift64*
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`, 0 if that is 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.random() >> 11) as usize % bound.max(1)
    }

    fn pick<'a>(&mut self, seeds: &[&'a [u8]]) -> &'a [u8] {
        seeds[self.below(seeds.len())]
    }

    /// The next input: a seed after a few changes.
    pub(super) fn next(&mut self, seeds: &[&[u8]], bytes_max: usize) -> Vec<u8> {
        let mut input = self.pick(seeds).to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut input, seeds);
        }
        input.truncate(bytes_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[&[u8]]) {
        let at = self.below(input.len());
        match self.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.random() as u8,
            2 => input.truncate(at),
            3 if !input.is_empty() => {
                let end = (at + 1 + self.below(8)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let edge = EDGES[self.below(EDGES.len())].to_be_bytes();
                let from = self.below(4);
                for (slot, byte) in input[at..].iter_mut().zip(&edge[from..]) {
                    *slot = *byte;
                }
            }
            5 => {
                let end = (at + self.below(64)).min(input.len());
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            6 => {
                let other = self.pick(seeds);
                let from = self.below(other.len());
                let to = from + self.below(other.len() - from + 1);
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => input.insert(at, self.random() as u8),
        }
    }
}
