//! Follows a chain forwards: finalized blocks once, in order; pending blocks anew whenever they change.

use std::sync::Arc;

use newton_types::Address;
use newton_types::events::{Block, ChainEvent, HeaderInfo};
use newton_types::manifest::Contracts;

use crate::decode::{addresses, decode};
use crate::view::MAX_RANGE;
use crate::{ChainError, ChainView};

/// Most blocks above the finalized head that are followed. Ethereum has about 100; a chain whose finality stands still
/// must not fill memory.
const MAX_PENDING: u64 = 4_096;

/// Finalized blocks that are new.
#[derive(Clone, Debug)]
pub struct FinalizedStep {
    /// In order; at most [`MAX_RANGE`].
    pub blocks: Vec<Block>,
    /// The finalized head when asked.
    pub finalized: HeaderInfo,
}

impl FinalizedStep {
    /// Whether the finalized head is reached; otherwise there is more to fetch at once.
    pub fn is_complete(&self) -> bool {
        self.blocks
            .last()
            .is_none_or(|last| last.header.number >= self.finalized.number)
    }
}

/// Reads blocks and the contracts' events through a view. Holds no state that a restart would miss: give it the next
/// block to deliver and the hash of the one before.
pub struct Follower {
    view: Arc<dyn ChainView>,
    contracts: Contracts,
    addresses: Vec<Address>,
    next: u64,
    delivered: Option<HeaderRef>,
    /// Blocks from `next` on, linked among themselves; not final.
    pending: Vec<Block>,
}

#[derive(Clone, Copy)]
struct HeaderRef {
    number: u64,
    hash: newton_types::B256,
}

impl Follower {
    /// Starts at block `next`. `parent`: hash of block `next - 1` if it is known; a chain on which that block is another
    /// contradicts it.
    pub fn new(
        view: Arc<dyn ChainView>,
        contracts: Contracts,
        next: u64,
        parent: Option<newton_types::B256>,
    ) -> Self {
        let delivered = parent.and_then(|hash| {
            let number = next.checked_sub(1)?;
            Some(HeaderRef { number, hash })
        });
        Self {
            view,
            addresses: addresses(&contracts),
            contracts,
            next,
            delivered,
            pending: Vec::new(),
        }
    }

    /// Height of the next finalized block to deliver.
    pub fn next_block(&self) -> u64 {
        self.next
    }

    /// The next finalized blocks, at most [`MAX_RANGE`]. They count as delivered once [`Self::delivered`] is called with
    /// the step, so a caller that fails to store them gets them again.
    pub async fn finalized(&mut self) -> Result<FinalizedStep, ChainError> {
        let finalized = self.view.finalized().await?;
        if let Some(known) = self.delivered
            && known.number == finalized.number
            && known.hash != finalized.hash
        {
            return Err(contradiction(known, finalized.hash));
        }
        // A node behind another one may report an older head for a while.
        if finalized.number < self.next {
            return Ok(FinalizedStep {
                blocks: Vec::new(),
                finalized,
            });
        }
        let to = finalized.number.min(self.next + MAX_RANGE - 1);
        let blocks = match self.pending_until(&finalized, to) {
            Some(blocks) => blocks,
            None => {
                let headers = self.view.headers(self.next, to).await?;
                if let Some(last) = headers.last()
                    && last.number == finalized.number
                    && last.hash != finalized.hash
                {
                    return Err(ChainError::Moved {
                        number: last.number,
                    });
                }
                self.blocks(&headers).await?
            }
        };
        if let (Some(known), Some(first)) = (self.delivered, blocks.first())
            && first.header.parent_hash != known.hash
        {
            return Err(contradiction(known, first.header.parent_hash));
        }
        Ok(FinalizedStep { blocks, finalized })
    }

    /// Says that a step's blocks are stored.
    pub fn delivered(&mut self, step: &FinalizedStep) {
        let Some(last) = step.blocks.last() else {
            return;
        };
        self.next = last.header.number + 1;
        self.delivered = Some(HeaderRef {
            number: last.header.number,
            hash: last.header.hash,
        });
        self.pending.retain(|b| b.header.number >= self.next);
        let linked = self
            .pending
            .first()
            .is_none_or(|b| b.header.parent_hash == last.header.hash);
        if !linked {
            self.pending.clear();
        }
    }

    /// Blocks from the last one delivered to the head, linked to it; empty if the head is not above it. Blocks that did
    /// not change since the last call are not asked for again.
    pub async fn pending(&mut self) -> Result<&[Block], ChainError> {
        let head = self.view.head().await?;
        if head.number < self.next {
            self.pending.clear();
            return Ok(&self.pending);
        }
        if let Some(at) = self.pending.iter().position(|b| b.header == head) {
            // Known. A head that stepped back takes the later blocks with it.
            self.pending.truncate(at + 1);
            return Ok(&self.pending);
        }
        let to = head.number.min(self.next + MAX_PENDING - 1);
        // Extend what is there if it is still the chain, else start over.
        let from = self
            .pending
            .last()
            .map_or(self.next, |b| b.header.number + 1);
        if from <= to && self.extend(from, to).await? {
            return Ok(&self.pending);
        }
        self.pending.clear();
        if self.extend(self.next, to).await? {
            Ok(&self.pending)
        } else {
            // Not on top of the delivered block: the node lags or the chain moved; finality will tell.
            Err(ChainError::Moved { number: self.next })
        }
    }

    /// Appends `from..=to` to the pending blocks. False if they do not link.
    async fn extend(&mut self, from: u64, to: u64) -> Result<bool, ChainError> {
        let mut start = from;
        while start <= to {
            let end = to.min(start + MAX_RANGE - 1);
            let headers = self.view.headers(start, end).await?;
            let parent = match self.pending.last() {
                Some(block) => Some(block.header.hash),
                None => self.delivered.map(|d| d.hash),
            };
            if let (Some(parent), Some(first)) = (parent, headers.first())
                && first.parent_hash != parent
            {
                return Ok(false);
            }
            let blocks = self.blocks(&headers).await?;
            self.pending.extend(blocks);
            start = end + 1;
        }
        Ok(true)
    }

    /// Pending blocks up to `to`, if they are known to be the finalized ones: linked up to the finalized hash.
    fn pending_until(&self, finalized: &HeaderInfo, to: u64) -> Option<Vec<Block>> {
        let linked = self.pending.first()?.header.number == self.next
            && self.pending.iter().any(|b| b.header == *finalized);
        linked.then(|| {
            self.pending
                .iter()
                .take_while(|b| b.header.number <= to)
                .cloned()
                .collect()
        })
    }

    async fn blocks(&self, headers: &[HeaderInfo]) -> Result<Vec<Block>, ChainError> {
        let logs = self.view.logs(&self.addresses, headers).await?;
        let mut blocks: Vec<Block> = headers
            .iter()
            .map(|header| Block {
                header: *header,
                events: Vec::new(),
            })
            .collect();
        let Some(first) = headers.first() else {
            return Ok(blocks);
        };
        for log in &logs {
            let Some(event) = decode(&self.contracts, log)? else {
                continue;
            };
            let index = (log.position.block - first.number) as usize;
            blocks[index].events.push(ChainEvent {
                position: log.position,
                event,
            });
        }
        Ok(blocks)
    }
}

fn contradiction(known: HeaderRef, got: newton_types::B256) -> ChainError {
    ChainError::Contradiction {
        number: known.number,
        known: known.hash,
        got,
    }
}
