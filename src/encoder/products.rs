//! Products of an ONNX graph: which of its values are the weights of some, and along which of their axes the columns are.

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

/// Nodes that may lie between weights and a product they are of.
const BETWEEN_MAX: usize = 4;
/// Products that may share their weights.
const SHARING_MAX: usize = 256;

/// Who reads each value of a graph.
pub(super) struct Readers<'a> {
    graph: &'a GraphProto,
    of: HashMap<&'a str, Vec<(&'a NodeProto, usize)>>,
}

impl<'a> Readers<'a> {
    /// Readers in `graph`.
    pub(super) fn of(graph: &'a GraphProto) -> Self {
        let mut of: HashMap<&str, Vec<(&NodeProto, usize)>> = HashMap::new();
        for node in &graph.node {
            node.input.iter().enumerate().for_each(|(slot, name)| of.entry(name).or_default().push((node, slot)));
        }
        Self { graph, of }
    }

    /// The node that alone reads a value, and which of its inputs that is.
    pub(super) fn only(&self, name: &str) -> Option<(&'a NodeProto, usize)> {
        match self.of.get(name).map(Vec::as_slice) {
            Some(&[reader]) if !self.graph.output.iter().any(|output| output.name == name) => Some(reader),
            _ => None,
        }
    }

    /// The products that a value of `rank` is the weights of, if nothing else reads it, and the axis along which the columns of all of them are.
    pub(super) fn products(&self, name: &str, rank: usize) -> Option<(Vec<&'a NodeProto>, usize)> {
        let mut found = Vec::new();
        self.follow(name, &mut Vec::new(), &mut found)?;
        let axes: Option<Vec<usize>> = found.iter().map(|product| product.column_axis(rank)).collect();
        let (&axis, others) = axes.as_deref()?.split_first()?;
        let is_one = others.iter().all(|&other| other == axis);
        is_one.then(|| (found.into_iter().map(|product| product.node).collect(), axis))
    }

    /// Gathers all readers of a value behind its copies and transpositions; none if the graph gives it out, or nothing reads it.
    fn follow(&self, name: &str, between: &mut Vec<&'a NodeProto>, found: &mut Vec<Reader<'a>>) -> Option<()> {
        if self.graph.output.iter().any(|output| output.name == name) {
            return None;
        }
        for &(node, slot) in self.of.get(name)? {
            if found.len() == SHARING_MAX {
                return None;
            }
            if matches!(node.op_type.as_str(), "Transpose" | "Identity") && slot == 0 && between.len() < BETWEEN_MAX {
                between.push(node);
                self.follow(node.output.first()?, between, found)?;
                between.pop();
            } else {
                found.push(Reader { node, slot, between: between.clone() });
            }
        }
        Some(())
    }
}

/// A node that reads a value, by way of others perhaps.
struct Reader<'a> {
    node: &'a NodeProto,
    /// Which of its inputs that is.
    slot: usize,
    /// Copies and transpositions on the way, from the value on.
    between: Vec<&'a NodeProto>,
}

impl Reader<'_> {
    /// The axis of a value of `rank` along which the columns are, if this is a product with it as its weights.
    fn column_axis(&self, rank: usize) -> Option<usize> {
        let mut axis = match (self.node.op_type.as_str(), self.slot) {
            ("Conv", 1) if integer(self.node, "group").unwrap_or(1) == 1 => 0,
            ("Gemm", 1) => usize::from(integer(self.node, "transB").unwrap_or(0) == 0),
            ("MatMul", 1) if rank >= 2 => rank - 1,
            _ => return None,
        };
        for turn in self.between.iter().rev().filter(|node| node.op_type == "Transpose") {
            axis = match attribute(turn, "perm") {
                Some(perm) => usize::try_from(*perm.ints.get(axis)?).ok()?,
                None => rank.checked_sub(axis + 1)?,
            };
        }
        (axis < rank).then_some(axis)
    }
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

pub(super) fn integer(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|attribute| attribute.i)
}
