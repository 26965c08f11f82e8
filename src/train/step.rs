//! Gradients of a batch, micro-batch by micro-batch, added up where the optimiser reads them.

use crate::bridge::profile::phase;
use crate::bridge::{BridgeError, CudaGraph};
use crate::nn::DecoderLm;
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

/// Forward and backward passes of one model over micro-batches of a fixed shape.
pub struct GradientStep {
    lm: DecoderLm,
    device: Device,
    /// Ids of a micro-batch, context + 1 in a row: what recorded work reads.
    ids: Tensor,
    /// Sum of a batch's losses so far.
    loss: Tensor,
    /// Rows that a batch has.
    batch_rows: usize,
    launches: Launches,
    passes: u32,
    graph: Option<CudaGraph>,
}

impl GradientStep {
    /// For batches of `batch_rows` rows of `row_ids` ids, `micro_batch` at a time.
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
            ids: Tensor::zeros([micro_batch.min(batch_rows) as i64, row_ids as i64], (Kind::Int64, device)),
            loss: Tensor::zeros([], (Kind::Float, device)),
            batch_rows,
            launches,
            passes: 0,
            graph: None,
        }
    }

    /// The model.
    pub fn model(&self) -> &DecoderLm {
        &self.lm
    }

    /// Adds the gradients of a batch's mean loss to those of the parameters. Does not wait for a GPU.
    pub fn run(&mut self, rows: &[i64]) -> Result<(), BridgeError> {
        let _ = self.loss.zero_();
        let (micro_batch, row_ids) = self.ids.size2().expect("ids are [b, t + 1]");
        for chunk in rows.chunks((micro_batch * row_ids) as usize) {
            let host = Tensor::from_slice(chunk).view([-1, row_ids]);
            let whole = host.size()[0] == micro_batch;
            if whole {
                self.ids.copy_(&host);
                self.whole()?;
            } else {
                pass(&self.lm, &host.to_device(self.device), self.batch_rows, &self.loss);
            }
        }
        Ok(())
    }

    /// One pass over `ids`: recorded work where there is some.
    fn whole(&mut self) -> Result<(), BridgeError> {
        if let Some(graph) = &mut self.graph {
            return graph.replay();
        }
        let body = || pass(&self.lm, &self.ids, self.batch_rows, &self.loss);
        if self.launches == Launches::Graph && self.passes == WARM_UP {
            let mut graph = CudaGraph::capture(body)?;
            graph.replay()?;
            self.graph = Some(graph);
        } else {
            body();
            self.passes += 1;
        }
        Ok(())
    }

    /// Mean loss of the latest batch, nats per token; waits for a GPU.
    pub fn loss(&self) -> f64 {
        self.loss.double_value(&[])
    }
}

/// Adds the share of some rows to the gradients and to `sum`.
fn pass(lm: &DecoderLm, ids: &Tensor, batch_rows: usize, sum: &Tensor) {
    let (rows, row_ids) = ids.size2().expect("ids are [b, t + 1]");
    let share = rows as f64 / batch_rows as f64;
    let (inputs, targets) = (ids.narrow(1, 0, row_ids - 1), ids.narrow(1, 1, row_ids - 1));
    let loss = {
        let _phase = phase("forward");
        lm.loss(&inputs, &targets, share)
    };
    {
        let _phase = phase("backward");
        loss.backward();
    }
    tch::no_grad(|| {
        let _ = sum.shallow_clone().g_add_(&loss);
    });
}
