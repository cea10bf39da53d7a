//! Layer norms and attention.

use super::*;

impl Lowering<'_> {
    /// `RmsNorm(x - mean x)`, which the engine makes of a layer norm.
    pub(super) fn layer_norm(&mut self, node: &TypedNode, op: &RmsNorm) -> TractResult<bool> {
        let centred = self.source.node(node.inputs[0].node);
        let shape = self.shape(node.inputs[0])?;
        if !centred.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<math::Sub>()) {
            return Ok(false);
        }
        let [value, mean] = [centred.inputs[0], centred.inputs[1]];
        let share = self.source.node(mean.node);
        if !share.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<math::Mul>()) {
            return Ok(false);
        }
        let width = shape[op.axis];
        let (sums, factors): (Vec<_>, Vec<_>) = share.inputs.iter().partition(|&&input| !self.is_constant(input));
        let factor = factors.first().and_then(|&&factor| self.scalar(factor));
        let is_mean = factor.is_some_and(|factor| (factor * width as f32 - 1.0).abs() < 1e-5);
        let Some(&&sum) = sums.first() else { return Ok(false) };
        let reduce = self.source.node(sum.node);
        let is_sum =
            reduce.op_as::<Reduce>().is_some_and(|reduce| reduce.reducer == Reducer::Sum && *reduce.axes == [op.axis]);
        if !is_mean || !is_sum || reduce.inputs[0] != value {
            return Ok(false);
        }
        let layer = LayerNorm { epsilon: op.eps.cast_to_scalar()?, gain: vec![1.0; width], bias: vec![0.0; width] };
        let layout = Layout::with_last(op.axis, shape.len());
        let shape = layout.order(shape.to_vec()).into();
        let norm = Norm { layer: Arc::new(layer), kernel: self.kernels.float, shape };
        let input = self.get(value, layout)?;
        self.place_open(node, Open { op: OpenOp::Norm(norm), inputs: tvec!(input), layout })?;
        Ok(true)
    }

    /// The second product of an attention, together with the first, the factor and the softmax before it.
    pub(super) fn attention(&mut self, node: &TypedNode, op: &EinSum) -> TractResult<bool> {
        let softmax = self.source.node(node.inputs[0].node);
        let Some(over) = softmax.op_as::<Softmax>() else { return Ok(false) };
        let mut scores = softmax.inputs[0];
        let rank = self.shape(scores)?.len();
        if *over.axes != [rank - 1] || !self.is_read_once(node.inputs[0]) || op.q_params.is_some() {
            return Ok(false);
        }
        let mut scale = 1.0;
        let scaled = self.source.node(scores.node);
        if scaled.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<math::Mul>())
            && let Some(place) = (0..2).find(|&place| self.scalar(scaled.inputs[place]).is_some())
            && self.is_read_once(scores)
        {
            scale = self.scalar(scaled.inputs[place]).expect("it was found above");
            scores = scaled.inputs[1 - place];
        }
        let first = self.source.node(scores.node);
        let Some(products) = first.op_as::<EinSum>() else { return Ok(false) };
        if !self.is_read_once(scores) || products.q_params.is_some() || first.inputs.len() != 2 {
            return Ok(false);
        }
        let names = |op: &EinSum, place: InOut| op.axes.axes(place).map(|axis| axis.repr).collect::<Vec<char>>();
        // The names of the second product, in those of the first: the scores are the output there and an input here.
        let [of_scores, of_probabilities] = [names(products, InOut::Out(0)), names(op, InOut::In(0))];
        let rename = |name: char| {
            let place = of_probabilities.iter().position(|&other| other == name);
            // Upper case cannot be one of the first product's.
            place.map_or(name.to_ascii_uppercase(), |place| of_scores[place])
        };
        let of_values: Vec<char> = names(op, InOut::In(1)).into_iter().map(rename).collect();
        let of_out: Vec<char> = names(op, InOut::Out(0)).into_iter().map(rename).collect();
        let operands =
            [(first.inputs[0], names(products, InOut::In(0))), (first.inputs[1], names(products, InOut::In(1)))];
        let out_shape = self.shape(OutletId::new(node.id, 0))?;
        let Some(attention) =
            self.attention_of(&of_scores, operands, (node.inputs[1], of_values), (out_shape, of_out), scale)?
        else {
            return Ok(false);
        };
        let (attention, inputs) = attention;
        let inputs =
            inputs.into_iter().map(|input| self.get(input, Layout::Plain)).collect::<TractResult<TVec<_>>>()?;
        self.place(node, Box::new(attention), &inputs, Layout::Plain)?;
        Ok(true)
    }

    /// The attention of these operands, and the outlets it reads.
    fn attention_of(
        &self,
        scores: &[char],
        [queries, keys]: [(OutletId, Vec<char>); 2],
        values: (OutletId, Vec<char>),
        (out_shape, out_names): (TVec<usize>, Vec<char>),
        scale: f32,
    ) -> TractResult<Option<(Attention, [OutletId; 3])>> {
        let (&length, rest) = scores.split_last().expect("it has the axis of the softmax");
        // Rows of the scores are queries: the last axis of those that the keys have not.
        // Without, there is one query.
        let row = rest.iter().rev().copied().find(|name| !keys.1.contains(name) || !values.1.contains(name));
        let outer: Vec<char> = rest.iter().copied().filter(|&name| Some(name) != row).collect();
        let lying = [self.lying(queries.0)?, self.lying(keys.0)?, self.lying(values.0)?];
        let places = [&queries.1, &keys.1, &values.1];
        let sizes: HashMap<char, usize> = places
            .iter()
            .zip(&lying)
            .flat_map(|(names, lying)| names.iter().copied().zip(lying.sizes.iter().copied()))
            .collect();
        let out_lying = Lying::of(OutletId::new(0, 0), &out_shape);
        // What is left of an operand is what is multiplied, or comes out.
        let own = |names: &[char], skip: &[char]| -> Vec<char> {
            names
                .iter()
                .copied()
                .filter(|name| !skip.contains(name) && sizes.get(name).is_some_and(|&size| size != 1))
                .collect()
        };
        let skip = |more: Option<char>| outer.iter().copied().chain(more).collect::<Vec<char>>();
        let widths = [
            own(&queries.1, &skip(row)),
            own(&keys.1, &skip(Some(length))),
            own(&values.1, &skip(Some(length))),
            own(&out_names, &skip(row)),
        ];
        let [of_queries, of_keys, of_values, of_out] = &widths;
        if of_queries.len() != 1 || of_queries != of_keys || of_values.len() != 1 || of_values != of_out {
            return Ok(None);
        }
        let view = |lying: &Lying, names: &[char], row: Option<char>, column: char| -> Option<View> {
            let stride = |name: char| names.iter().position(|&other| other == name).map(|place| lying.strides[place]);
            if stride(column)? != 1 {
                return None;
            }
            let outer = outer.iter().map(|&name| stride(name)).collect::<Option<TVec<usize>>>()?;
            let row = row.map_or(Some(sizes[&column]), stride)?;
            Some(View { offset: lying.offset, outer, row })
        };
        let (width, out_width) = (of_queries[0], of_values[0]);
        let views = [
            view(&lying[0], &queries.1, row, width),
            view(&lying[1], &keys.1, Some(length), width),
            view(&lying[2], &values.1, Some(length), out_width),
            view(&out_lying, &out_names, row, out_width),
        ];
        let [Some(queries), Some(keys), Some(values), Some(out)] = views else { return Ok(None) };
        let attention = Attention {
            queries,
            keys,
            values,
            out,
            outer: outer.iter().map(|name| sizes[name]).collect(),
            sizes: [row.map_or(1, |row| sizes[&row]), sizes[&length], sizes[&width], sizes[&out_width]],
            scale,
            shape: out_shape,
            kernel: self.kernels.float,
        };
        Ok(Some((attention, lying.map(|lying| lying.base))))
    }

    /// Where a value lies: in itself, or in what it is a part or another shape of.
    fn lying(&self, outlet: OutletId) -> TractResult<Lying> {
        let node = self.source.node(outlet.node);
        let itself = || Ok(Lying::of(outlet, &self.shape(outlet)?));
        if node.inputs.len() != 1 || self.layout(node.inputs[0]) != Layout::Plain {
            return itself();
        }
        let changed = if let Some(op) = node.op_as::<AxisOp>() {
            self.lying(node.inputs[0])?.changed(op)
        } else if let Some(op) = node.op_as::<Slice>() {
            let mut lying = self.lying(node.inputs[0])?;
            match (op.start.to_usize(), op.end.to_usize()) {
                (Ok(start), Ok(end)) => {
                    lying.offset += start * lying.strides[op.axis];
                    lying.sizes[op.axis] = end - start;
                    Some(lying)
                }
                _ => None,
            }
        } else {
            None
        };
        changed.map_or_else(itself, Ok)
    }
}

/// Places of a value in the memory of another.
#[derive(Clone, Debug)]
struct Lying {
    base: OutletId,
    offset: usize,
    sizes: TVec<usize>,
    strides: TVec<usize>,
}

impl Lying {
    /// A value in its own memory.
    fn of(base: OutletId, shape: &[usize]) -> Self {
        let mut strides: TVec<usize> = shape.into();
        let mut stride = 1;
        for (slot, &size) in strides.iter_mut().zip(shape).rev() {
            *slot = stride;
            stride *= size;
        }
        Self { base, offset: 0, sizes: shape.into(), strides }
    }

    /// The same memory in another shape, where that is possible.
    fn changed(mut self, op: &AxisOp) -> Option<Self> {
        match op {
            &AxisOp::Add(axis) => {
                self.sizes.insert(axis, 1);
                self.strides.insert(axis, 0);
            }
            &AxisOp::Rm(axis) => {
                self.sizes.remove(axis);
                self.strides.remove(axis);
            }
            &AxisOp::Move(from, to) => {
                let (size, stride) = (self.sizes.remove(from), self.strides.remove(from));
                self.sizes.insert(to, size);
                self.strides.insert(to, stride);
            }
            AxisOp::Reshape(at, from, to) => {
                // One axis into several: the last keeps the distance.
                let to = to.iter().map(|size| size.to_usize().ok()).collect::<Option<TVec<usize>>>()?;
                if from.len() != 1 {
                    return None;
                }
                let mut stride = self.strides[*at];
                let mut strides = to.clone();
                for (slot, &size) in strides.iter_mut().zip(&to).rev() {
                    *slot = stride;
                    stride *= size;
                }
                self.sizes.remove(*at);
                self.strides.remove(*at);
                self.sizes.insert_many(*at, to);
                self.strides.insert_many(*at, strides);
            }
        }
        Some(self)
    }
}
