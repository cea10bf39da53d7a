//! What follows an operator of ours, taken into it; element-wise operators, and those of images, that go along with the layout.

use super::*;

impl Lowering<'_> {
    pub(super) fn binary(&mut self, node: &TypedNode, op: &TypedBinOp) -> TractResult<bool> {
        if op.1.is_some() || self.source.outlet_fact(node.inputs[0])?.datum_type != f32::datum_type() {
            return Ok(false);
        }
        let [one, other] = [node.inputs[0], node.inputs[1]];
        let (is_add, is_mul) = (op.0.is::<math::Add>(), op.0.is::<math::Mul>());
        if is_mul && self.swish(node)? {
            return Ok(true);
        }
        for (value, constant) in [(one, other), (other, one)] {
            if !self.is_constant(constant) {
                continue;
            }
            if let Some(open) = self.open_at(value)
                && let Some(open) = self.with_constant(node, op, open, value, constant)?
            {
                self.place_open(node, open)?;
                return Ok(true);
            }
        }
        if is_add && self.shape(one)? == self.shape(other)? {
            for (value, residual) in [(one, other), (other, one)] {
                if !self.is_constant(residual) && self.residual(node, value, residual)? {
                    return Ok(true);
                }
            }
        }
        self.element_wise(node)
    }

    /// Any element-wise operator in the layout that its inputs have.
    pub(super) fn element_wise(&mut self, node: &TypedNode) -> TractResult<bool> {
        let rank = node.outputs[0].fact.rank();
        let layout = node.inputs.iter().map(|&input| self.layout(input)).find(|&layout| layout != Layout::Plain);
        let have_rank =
            node.inputs.iter().all(|&input| self.source.outlet_fact(input).is_ok_and(|fact| fact.rank() == rank));
        let Some(layout) = layout.filter(|_| have_rank) else { return Ok(false) };
        let inputs = node.inputs.iter().map(|&input| self.get(input, layout)).collect::<TractResult<TVec<_>>>()?;
        self.place(node, node.op.clone(), &inputs, layout)?;
        Ok(true)
    }

    /// An operator of ours with a constant taken in: a bias, the factors of a norm, a bound.
    pub(super) fn with_constant(
        &self,
        node: &TypedNode,
        op: &TypedBinOp,
        open: Open,
        value: OutletId,
        constant: OutletId,
    ) -> TractResult<Option<Open>> {
        let Open { op: ours, inputs, layout } = open;
        let scalar = self.scalar(constant);
        let activation = ours.activation();
        let clamped = match (activation, scalar) {
            (Some(Activation::None), Some(low)) if op.0.is::<math::Max>() => {
                Some(Activation::Clamp { low, high: f32::INFINITY })
            }
            (Some(Activation::Clamp { low, high }), Some(bound)) if op.0.is::<math::Min>() && low <= bound => {
                Some(Activation::Clamp { low, high: high.min(bound) })
            }
            _ => None,
        };
        if let Some(activation) = clamped {
            return Ok(Some(Open { op: ours.with_activation(activation), inputs, layout }));
        }
        let rank = self.shape(value)?.len();
        let axis = layout.last(rank);
        if self.shape(OutletId::new(node.id, 0))? != self.shape(value)? {
            return Ok(None);
        }
        let Some(vector) = self.along(constant, axis, self.shape(value)?[axis])? else { return Ok(None) };
        let sum = |values: &[f32]| values.iter().zip(&vector).map(|(value, more)| value + more).collect::<Vec<f32>>();
        let (is_add, is_mul) = (op.0.is::<math::Add>(), op.0.is::<math::Mul>());
        let op = match ours {
            // A bias behind the residual is the same sum.
            OpenOp::Linear(mut op) if is_add && activation == Some(Activation::None) => {
                let bias = Arc::make_mut(&mut op.bias);
                bias.iter_mut().zip(&vector).for_each(|(bias, more)| *bias += more);
                OpenOp::Linear(op)
            }
            OpenOp::Norm(op) if is_add => {
                let LayerNorm { epsilon, gain, bias } = &*op.layer;
                let layer = LayerNorm { epsilon: *epsilon, gain: gain.clone(), bias: sum(bias) };
                OpenOp::Norm(Norm { layer: Arc::new(layer), ..op })
            }
            OpenOp::Norm(op) if is_mul => {
                let times = |values: &[f32]| values.iter().zip(&vector).map(|(value, factor)| value * factor).collect();
                let LayerNorm { epsilon, gain, bias } = &*op.layer;
                let layer = LayerNorm { epsilon: *epsilon, gain: times(gain), bias: times(bias) };
                OpenOp::Norm(Norm { layer: Arc::new(layer), ..op })
            }
            _ => return Ok(None),
        };
        Ok(Some(Open { op, inputs, layout }))
    }

    /// The values of a constant along one axis of `size`, if it has no other axes.
    pub(super) fn along(&self, constant: OutletId, axis: usize, size: usize) -> TractResult<Option<Vec<f32>>> {
        let Some(tensor) = self.constant(constant)? else { return Ok(None) };
        let shape = tensor.shape();
        if tensor.datum_type() != f32::datum_type()
            || shape.iter().enumerate().any(|(at, &size)| at != axis && size != 1)
        {
            return Ok(None);
        }
        let values = contiguous(&tensor)?;
        Ok(match values.len() {
            1 => Some(vec![values[0]; size]),
            length if length == size => Some(values.to_vec()),
            _ => None,
        })
    }

    /// A sum with another value, taken into the operator that `value` comes from.
    pub(super) fn residual(&mut self, node: &TypedNode, value: OutletId, residual: OutletId) -> TractResult<bool> {
        let Some(Open { op, mut inputs, layout }) = self.open_at(value) else { return Ok(false) };
        if inputs.len() != 1 || op.activation() != Some(Activation::None) || matches!(op, OpenOp::Depthwise(_)) {
            return Ok(false);
        }
        inputs.push(self.get(residual, layout)?);
        self.place_open(node, Open { op, inputs, layout })?;
        Ok(true)
    }

    pub(super) fn unary(&mut self, node: &TypedNode, op: &ElementWiseOp) -> TractResult<bool> {
        let activation = match () {
            () if op.0.is::<GeluExact>() => Some(Activation::Gelu),
            () if op.0.is::<Silu>() => Some(Activation::Silu),
            () => None,
        };
        if let Some(activation) = activation
            && let Some(Open { op, inputs, layout }) = self.open_at(node.inputs[0])
            && op.activation() == Some(Activation::None)
        {
            self.place_open(node, Open { op: op.with_activation(activation), inputs, layout })?;
            return Ok(true);
        }
        self.element_wise(node)
    }

    /// `x σ(1.702 x)`, taken into the operator that x comes from; the nodes in between are read by nobody then.
    pub(super) fn swish(&mut self, node: &TypedNode) -> TractResult<bool> {
        for (value, gate) in [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])] {
            let sigmoid = self.source.node(gate.node);
            if !sigmoid.op_as::<ElementWiseOp>().is_some_and(|op| op.0.is::<Sigmoid>()) || !self.is_read_once(gate) {
                continue;
            }
            let scaled = sigmoid.inputs[0];
            let product = self.source.node(scaled.node);
            let is_scaled = product.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<math::Mul>())
                && self.is_read_once(scaled)
                && product.inputs.contains(&value)
                && product.inputs.iter().any(|&input| self.scalar(input) == Some(1.702));
            let readers = self.source.outlet_successors(value).len();
            if !is_scaled || readers != 2 || self.source.outputs.contains(&value) {
                continue;
            }
            let Some(Open { op, inputs, layout }) = self.open.get(&value).cloned() else { continue };
            if op.activation() != Some(Activation::None) {
                continue;
            }
            self.place_open(node, Open { op: op.with_activation(Activation::QuickGelu), inputs, layout })?;
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) fn turned(&mut self, node: &TypedNode) -> TractResult<bool> {
        let rank = node.inputs.first().map_or(0, |&input| self.source.outlet_fact(input).map_or(0, |fact| fact.rank()));
        if node.inputs.len() != 1 || rank < 3 || self.layout(node.inputs[0]) != Layout::Last(channel_axis(rank)) {
            return Ok(false);
        }
        let channels = channel_axis(rank);
        let turned = |axis: usize| if axis > channels { axis - 1 } else { axis };
        let op: Box<dyn TypedOp> = if let Some(op) = node.op_as::<Reduce>().filter(|op| !op.axes.contains(&channels)) {
            Box::new(Reduce { axes: op.axes.iter().map(|&axis| turned(axis)).collect(), ..op.clone() })
        } else if let Some(op) = node.op_as::<Downsample>().filter(|op| op.axis != channels) {
            Box::new(Downsample { axis: turned(op.axis), ..op.clone() })
        } else if let Some(op) = node.op_as::<MaxPool>().filter(|op| is_channels_first(op.pool_spec.data_format)) {
            let mut op = op.clone();
            op.pool_spec.data_format = channels_last(op.pool_spec.data_format);
            Box::new(op)
        } else if let Some(op) = self.average_pool(node)? {
            Box::new(op)
        } else if let Some(op) = node.op_as::<SumPool>().filter(|op| is_channels_first(op.pool_spec.data_format)) {
            let mut op = op.clone();
            op.pool_spec.data_format = channels_last(op.pool_spec.data_format);
            Box::new(op)
        } else {
            return Ok(false);
        };
        let input = self.get(node.inputs[0], Layout::Last(channels))?;
        self.place(node, op, &[input], Layout::Last(channels))?;
        Ok(true)
    }
}

fn channels_last(format: DataFormat) -> DataFormat {
    if format == DataFormat::CHW { DataFormat::HWC } else { DataFormat::NHWC }
}
