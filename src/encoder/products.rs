//! Products of an ONNX graph: which of its values are the weights of one, and along which of their axes the columns are.

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};

/// Nodes that may lie between weights and the product they are of.
const TURNS_MAX: usize = 4;

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

    /// The product that alone reads a value as its weights, by way of transpositions perhaps.
    pub(super) fn product(&self, name: &str) -> Option<&'a NodeProto> {
        self.follow(name).map(|(node, ..)| node)
    }

    /// The axis along which the columns are, if a value of `rank` is the weights of one product alone.
    pub(super) fn column_axis(&self, name: &str, rank: usize) -> Option<usize> {
        let (node, slot, turns) = self.follow(name)?;
        let mut axis = match (node.op_type.as_str(), slot) {
            ("Conv", 1) if integer(node, "group").unwrap_or(1) == 1 => 0,
            ("Gemm", 1) => usize::from(integer(node, "transB").unwrap_or(0) == 0),
            ("MatMul", 1) if rank >= 2 => rank - 1,
            _ => return None,
        };
        for turn in turns.into_iter().rev() {
            axis = match attribute(turn, "perm") {
                Some(perm) => usize::try_from(*perm.ints.get(axis)?).ok()?,
                None => rank.checked_sub(axis + 1)?,
            };
        }
        (axis < rank).then_some(axis)
    }

    /// The node behind all transpositions of a value, which of its inputs that is, and these transpositions.
    fn follow(&self, name: &str) -> Option<(&'a NodeProto, usize, Vec<&'a NodeProto>)> {
        let (mut node, mut slot) = self.only(name)?;
        let mut turns = Vec::new();
        while node.op_type == "Transpose" && turns.len() < TURNS_MAX {
            turns.push(node);
            (node, slot) = self.only(node.output.first()?)?;
        }
        Some((node, slot, turns))
    }
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

pub(super) fn integer(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|attribute| attribute.i)
}
