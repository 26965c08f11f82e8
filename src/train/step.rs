//! Gradients of a batch, micro-batch by micro-batch, added up where the optimiser reads them.

use super::overlap::OverlappedSum;
use crate::bridge::profile::phase;
use crate::bridge::{BridgeError, CudaGraph};
use crate::nn::{BackwardWatch, DecoderLm};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Passes over a shape before its work is recorded: LibTorch chooses algorithms and takes memory in the first ones.
const WARM_UP: u32 = 3;

/// Whether the work of a micro-batch is recorded once and then replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launches {
    /// One by one.
    Eager,
    /// As one graph, on a GPU.
    Graph,
}

/// What a step leaves beside gradients, summed over ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Mean loss of the batch, nats per token.
    pub loss: f64,
    /// Whether some rank was asked to stop.
    pub stop: bool,
    /// Whether some rank wants a checkpoint.
    pub save: bool,
}

/// Forward and backward passes of one model over micro-batches of a fixed shape.
pub struct GradientStep {
    lm: DecoderLm,
    device: Device,
    /// Ids of a micro-batch, context + 1 in a row: what recorded work reads.
    ids: Tensor,
    /// [`Totals`] of this batch so far, fp32: what ranks add up.
    totals: Tensor,
    /// Rows that a batch has, those of other ranks included.
    batch_rows: usize,
    launches: Launches,
    passes: u32,
    /// Recorded work of a micro-batch, and of a batch's last one where ranks add up their gradients meanwhile.
    graph: Option<CudaGraph>,
    last_graph: Option<CudaGraph>,
}

impl GradientStep {
    /// For batches of `batch_rows` rows of `row_ids` ids, of which up to `micro_batch` go through the model at a time.
    pub fn new(
        lm: DecoderLm,
        device: Device,
        batch_rows: usize,
        micro_batch: usize,
        row_ids: usize,
        launches: Launches,
    ) -> Self {
        let launches = if matches!(device, Device::Cuda(_)) { launches } else { Launches::Eager };
        Self {
            lm,
            device,
            ids: Tensor::zeros([micro_batch as i64, row_ids as i64], (Kind::Int64, device)),
            totals: Tensor::zeros([3], (Kind::Float, device)),
            batch_rows,
            launches,
            passes: 0,
            graph: None,
            last_graph: None,
        }
    }

    /// The model.
    pub fn model(&self) -> &DecoderLm {
        &self.lm
    }

    /// Adds the share that `rows` have in the gradients of a batch's mean loss to those of the parameters, and, with a
    /// `reduction`, begins to add them to those of other ranks while the last backward pass goes on. Does not wait for a
    /// GPU.
    pub fn run(&mut self, rows: &[i64], reduction: Option<&Arc<OverlappedSum>>) -> Result<(), BridgeError> {
        let _ = self.totals.zero_();
        let (micro_batch, row_ids) = self.ids.size2().expect("ids are [b, t + 1]");
        let mut chunks = rows.chunks((micro_batch * row_ids) as usize).peekable();
        while let Some(chunk) = chunks.next() {
            let host = Tensor::from_slice(chunk).view([-1, row_ids]);
            let whole = host.size()[0] == micro_batch;
            let reduction = reduction.filter(|_| chunks.peek().is_none());
            if whole {
                self.ids.copy_(&host);
                self.whole(reduction)?;
            } else {
                pass(&self.lm, &host.to_device(self.device), self.batch_rows, &self.totals, reduction);
            }
        }
        match reduction {
            Some(reduction) => reduction.finish(),
            None => Ok(()),
        }
    }

    /// One pass over `ids`: recorded work where there is some.
    fn whole(&mut self, reduction: Option<&Arc<OverlappedSum>>) -> Result<(), BridgeError> {
        let Self { graph, last_graph, lm, ids, batch_rows, totals, .. } = self;
        let (own, other) = if reduction.is_some() { (last_graph, &*graph) } else { (graph, &*last_graph) };
        if let Some(graph) = own {
            return graph.replay();
        }
        let body = || pass(lm, ids, *batch_rows, totals, reduction);
        if self.launches == Launches::Graph && self.passes >= WARM_UP {
            let mut graph = CudaGraph::capture(other.as_ref(), body)?;
            graph.replay()?;
            *own = Some(graph);
        } else {
            body();
            self.passes += 1;
        }
        Ok(())
    }

    /// Adds what ranks decide together to the totals; the tensor is theirs to add up.
    pub fn vote(&self, stop: bool, save: bool) -> &Tensor {
        for (place, wish) in [(1, stop), (2, save)] {
            if wish {
                let _ = self.totals.get(place).fill_(1.0);
            }
        }
        &self.totals
    }

    /// Totals of the latest batch; waits for a GPU.
    pub fn totals(&self) -> Totals {
        let [loss, stop, save] = <[f64; 3]>::try_from(
            Vec::<f64>::try_from(self.totals.to_device(Device::Cpu).to_kind(Kind::Double)).expect("a flat tensor"),
        )
        .expect("three numbers");
        Totals { loss, stop: stop > 0.0, save: save > 0.0 }
    }
}

/// Adds the share of some rows to the gradients and to the first of `sum`.
fn pass(lm: &DecoderLm, ids: &Tensor, batch_rows: usize, sum: &Tensor, reduction: Option<&Arc<OverlappedSum>>) {
    let (rows, row_ids) = ids.size2().expect("ids are [b, t + 1]");
    let share = rows as f64 / batch_rows as f64;
    let (inputs, targets) = (ids.narrow(1, 0, row_ids - 1), ids.narrow(1, 1, row_ids - 1));
    let watch = reduction.map(|reduction| reduction.clone() as Arc<dyn BackwardWatch>);
    let loss = {
        let _phase = phase("forward");
        lm.watched_loss(&inputs, &targets, share, watch.as_ref())
    };
    {
        let _phase = phase("backward");
        loss.backward();
    }
    tch::no_grad(|| {
        let _ = sum.get(0).g_add_(&loss);
    });
    if let Some(reduction) = reduction {
        reduction.join();
    }
}
