//! Convolutions, and products with constant weights.

use super::*;

impl Lowering<'_> {
    pub(super) fn conv(&mut self, node: &TypedNode, op: &cnn::Conv) -> TractResult<bool> {
        let spec = &op.pool_spec;
        let is_plain = op.kernel_fmt == KernelFormat::OIHW && op.q_params.is_none();
        let is_depthwise = op.group > 1 && op.group == spec.input_channels && op.group == spec.output_channels;
        if !is_plain || spec.kernel_shape.len() != 2 || !(op.group == 1 || is_depthwise) {
            return Ok(false);
        }
        let Some(bias) = self.constant(node.inputs[2])?.filter(|_| self.is_constant(node.inputs[1])) else {
            return Ok(false);
        };
        let [input, output] = [self.shape(node.inputs[0])?, self.shape(OutletId::new(node.id, 0))?];
        // On processors for which it has kernels of such images, the engine brings the channels to the end itself.
        let channels_at = if is_channels_first(spec.data_format) { channel_axis(input.len()) } else { input.len() - 1 };
        let columns = output[channels_at];
        let mut shape = output.clone();
        shape.remove(channels_at);
        shape.push(columns);
        let bias: Vec<f32> = match contiguous(&bias)? {
            [all] => vec![*all; columns],
            each => each.to_vec(),
        };
        let layout = Layout::with_last(channels_at, input.len());
        let geometry = geometry_of(spec, &input, &output, channels_at);
        if is_depthwise && (geometry.strides[0] != geometry.strides[1] || geometry.dilations != [1, 1]) {
            return Ok(false);
        }
        let from = self.get(node.inputs[0], layout)?;
        let op = if is_depthwise {
            let kernel = self.constant(node.inputs[1])?.ok_or_else(|| format_err!("a filter is not constant"))?;
            OpenOp::Depthwise(self.depthwise(geometry, shape, contiguous(&kernel)?, bias))
        } else {
            let Geometry { size: [high, wide], channels, .. } = geometry;
            let packed = self.pack(node, 1, high * wide * channels, columns, |weights, k, n| {
                let (place, channel) = (k / channels, k % channels);
                weights[(n * channels + channel) * high * wide + place]
            })?;
            let bias = self.padded(bias);
            let is_pointwise = (geometry.size, geometry.strides, geometry.padding) == ([1, 1], [1, 1], [0, 0])
                && geometry.extent == geometry.out;
            if is_pointwise {
                OpenOp::Linear(Linear { packed, bias, activation: Activation::None, shape })
            } else {
                OpenOp::Conv(Conv { geometry, shape, packed, bias, activation: Activation::None })
            }
        };
        self.place_open(node, Open { op, inputs: tvec!(from), layout })?;
        Ok(true)
    }

    /// An average pool of ours, if a node is one whose windows lie within the image.
    pub(super) fn average_pool(&self, node: &TypedNode) -> TractResult<Option<AveragePool>> {
        let Some(op) = node.op_as::<SumPool>().filter(|op| op.normalize) else { return Ok(None) };
        let spec = &op.pool_spec;
        if !is_channels_first(spec.data_format) || spec.kernel_shape.len() != 2 {
            return Ok(None);
        }
        let [input, output] = [self.shape(node.inputs[0])?, self.shape(OutletId::new(node.id, 0))?];
        let channels_at = channel_axis(input.len());
        let geometry = geometry_of(spec, &input, &output, channels_at);
        let is_within = (0..2).all(|axis| {
            let last = (geometry.out[axis] - 1) * geometry.strides[axis];
            let reach = (geometry.size[axis] - 1) * geometry.dilations[axis];
            geometry.padding[axis] == 0 && last + reach < geometry.extent[axis]
        });
        let shape = Layout::Last(channels_at).order(output.to_vec()).into();
        Ok(is_within.then_some(AveragePool { geometry, shape, kernel: self.kernels.float }))
    }

    fn depthwise(&self, geometry: Geometry, shape: TVec<usize>, weights: &[f32], bias: Vec<f32>) -> DepthwiseConv {
        let (size, columns) = (geometry.size, bias.len());
        // From a filter for each channel to a row of channels for each place.
        let mut turned = vec![0.0; weights.len()];
        for (channel, filter) in weights.chunks_exact(size[0] * size[1]).enumerate() {
            filter.iter().enumerate().for_each(|(place, &weight)| turned[place * columns + channel] = weight);
        }
        let convolution = Depthwise {
            size,
            stride: geometry.strides[0],
            padding: geometry.padding,
            weights: turned,
            bias,
            activation: Activation::None,
        };
        DepthwiseConv { geometry, shape, convolution: Arc::new(convolution), kernel: self.kernels.float }
    }

    /// Weights from an input of `node`, packed for the kernel that their precision asks for; `weight(values, k, n)` finds each.
    pub(super) fn pack(
        &mut self,
        node: &TypedNode,
        slot: usize,
        depth: usize,
        columns: usize,
        weight: impl Fn(&[f32], usize, usize) -> f32,
    ) -> TractResult<Arc<Packed>> {
        let outlet = node.inputs[slot];
        let stored = self.stored.get(&outlet.node).copied();
        let is_int8 = stored.is_some_and(|index| self.weights.is_int8(index)) && depth <= INT8_DEPTH_MAX;
        let Kernels { float, int8 } = self.kernels;
        let pack = || {
            let constant = self.constant(outlet)?.ok_or_else(|| format_err!("weights are not constant"))?;
            let values = contiguous(&constant)?;
            if !is_int8 {
                return Ok(Packed::Float(FloatWeights::pack(float, depth, columns, |k, n| weight(values, k, n))));
            }
            // What was brought to int8 once and back gives the same integers again: the largest of a column is 127.
            let mut column = vec![0.0; depth];
            Ok(Packed::Int(IntWeights::pack(int8, depth, columns, |n, slots| {
                column.iter_mut().enumerate().for_each(|(k, slot)| *slot = weight(values, k, n));
                quantise_weights(&column, slots)
            })))
        };
        let Some(index) = stored else { return pack().map(Arc::new) };
        let key = LayerKey { name: node.name.clone(), index, is_int8, depth, columns };
        let packed = self.prepared.known(&key).map_or_else(|| pack().map(Arc::new), Ok)?;
        self.prepared.keep(key, packed.clone());
        Ok(packed)
    }

    /// A bias for whole panels of any kernel.
    pub(super) fn padded(&self, mut bias: Vec<f32>) -> Arc<Vec<f32>> {
        bias.resize(bias.len().next_multiple_of(PANEL_MAX), 0.0);
        Arc::new(bias)
    }

    /// A product with constant weights.
    pub(super) fn product(&mut self, node: &TypedNode, op: &EinSum) -> TractResult<bool> {
        if op.q_params.is_some() || op.operating_dt != f32::datum_type() || node.inputs.len() != 2 {
            return Ok(false);
        }
        let Some(slot) = (0..2).find(|&slot| self.is_constant(node.inputs[slot])) else { return Ok(false) };
        let (stored, value) = (node.inputs[slot], node.inputs[1 - slot]);
        if self.is_constant(value) {
            return Ok(false);
        }
        let layout = self.layout(value);
        let names_at = |place: InOut| op.axes.axes(place).map(|axis| axis.repr).collect::<Vec<char>>();
        let names = layout.order(names_at(InOut::In(1 - slot)));
        let weights = Axes::new(&names_at(InOut::In(slot)), &self.shape(stored)?);
        // The output has its columns behind all else, wherever that axis is in the source.
        let (out_names, out_shape) = (names_at(InOut::Out(0)), self.shape(OutletId::new(node.id, 0))?.to_vec());
        let column = out_names.iter().rposition(|&name| weights.has(name) && !names.contains(&name));
        let out_layout = column.map_or(Layout::Plain, |column| Layout::with_last(column, out_names.len()));
        let (out_names, out_shape) = (out_layout.order(out_names), out_layout.order(out_shape));
        let shape = layout.order(self.shape(value)?.to_vec());
        let input = Axes::new(&names, &shape);
        let Some(Contraction { kept, terms, columns }) =
            Contraction::of(&input, &weights, &Axes::new(&out_names, &out_shape))
        else {
            return Ok(false);
        };
        let (of_terms, of_columns) = (weights.offsets(&terms), weights.offsets(&columns));
        let weight = |values: &[f32], k: usize, n: usize| values[of_terms[k] + of_columns[n]];
        let packed = self.pack(node, slot, of_terms.len(), of_columns.len(), weight)?;
        let bias = self.padded(vec![0.0; of_columns.len()]);
        let rows: Vec<char> = kept.0.iter().chain(&terms.0).map(|&(name, _)| name).collect();
        let input = self.get(value, layout)?;
        let input = self.ordered(node, input, (names, shape), &rows)?;
        let op = OpenOp::Linear(Linear { packed, bias, activation: Activation::None, shape: out_shape.into() });
        self.place_open(node, Open { op, inputs: tvec!(input), layout: out_layout })?;
        Ok(true)
    }

    /// A value with its axes in this order; those of size 1, which are nowhere in memory, stay where they are.
    fn ordered(
        &mut self,
        node: &TypedNode,
        mut value: OutletId,
        (mut names, mut shape): (Vec<char>, Vec<usize>),
        wanted: &[char],
    ) -> TractResult<OutletId> {
        for (at, &name) in wanted.iter().enumerate() {
            let sized: Vec<usize> = (0..names.len()).filter(|&place| shape[place] != 1).collect();
            let from = names.iter().position(|&other| other == name).expect("it is one of the value's");
            let to = sized[at];
            if from != to {
                let turn = AxisOp::Move(from, to);
                value = self.target.wire_node(format!("{}.rows.{at}", node.name), turn, &[value])?[0];
                let (name, size) = (names.remove(from), shape.remove(from));
                names.insert(to, name);
                shape.insert(to, size);
            }
        }
        Ok(value)
    }
}

fn geometry_of(spec: &PoolSpec, input: &[usize], output: &[usize], channels_at: usize) -> Geometry {
    // The image's axes are the last three, with the channels before the other two or behind them.
    let first = if channels_at + 1 == input.len() { channels_at - 2 } else { channels_at + 1 };
    let extent = [input[first], input[first + 1]];
    let padding = spec.computed_padding(&extent);
    let pair = |sizes: Option<&TVec<usize>>| sizes.map_or([1, 1], |sizes| [sizes[0], sizes[1]]);
    Geometry {
        size: [spec.kernel_shape[0], spec.kernel_shape[1]],
        strides: pair(spec.strides.as_ref()),
        dilations: pair(spec.dilations.as_ref()),
        padding: [padding[0].pad_before, padding[1].pad_before],
        extent,
        out: [output[first], output[first + 1]],
        channels: input[channels_at],
    }
}

/// Names and sizes of the axes of a value that are larger than 1, in the order they have in memory.
#[derive(Clone, Debug, PartialEq)]
struct Axes(Vec<(char, usize)>);

impl Axes {
    fn new(names: &[char], shape: &[usize]) -> Self {
        Self(names.iter().copied().zip(shape.iter().copied()).filter(|&(_, size)| size != 1).collect())
    }

    fn has(&self, name: char) -> bool {
        self.0.iter().any(|&(other, _)| other == name)
    }

    /// Those that another value has too, or that it has not.
    fn shared(&self, other: &Self, is_shared: bool) -> Self {
        Self(self.0.iter().copied().filter(|&(name, _)| other.has(name) == is_shared).collect())
    }

    /// Offset in memory of each place along some of the axes, the last of which is the fastest.
    fn offsets(&self, some: &Self) -> Vec<usize> {
        let stride = |name: char| {
            self.0.iter().rev().take_while(|&&(other, _)| other != name).map(|&(_, size)| size).product::<usize>()
        };
        let strides: Vec<usize> = some.0.iter().map(|&(name, _)| stride(name)).collect();
        let count = some.0.iter().map(|&(_, size)| size).product();
        let offset = |mut index: usize| {
            let mut offset = 0;
            for (&(_, size), stride) in some.0.iter().zip(&strides).rev() {
                offset += index % size * stride;
                index /= size;
            }
            offset
        };
        (0..count).map(offset).collect()
    }
}

/// A product of rows with weights: the axes that stay, those that are summed over, and those that come from the weights.
struct Contraction {
    kept: Axes,
    terms: Axes,
    columns: Axes,
}

impl Contraction {
    /// The product of these axes; none where the columns are not behind the rows, or an axis is a row and a weight at once.
    fn of(input: &Axes, weights: &Axes, out: &Axes) -> Option<Self> {
        let (terms, kept) = (input.shared(weights, true), input.shared(weights, false));
        let columns = out.shared(&kept, false);
        let of_weights = weights.shared(input, false);
        let is_ordered = out.0 == [&kept.0[..], &columns.0].concat();
        let has_columns = columns.0.len() == of_weights.0.len() && of_weights.shared(&columns, true) == of_weights;
        let is_summed = !terms.0.is_empty() && terms.shared(out, true).0.is_empty();
        (is_ordered && has_columns && is_summed).then_some(Self { kept, terms, columns })
    }
}
