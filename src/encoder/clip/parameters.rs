//! The parameters of both towers: their names in Hugging Face's files, their shapes, and what each does, by which it is
//! drawn.

use super::config::ClipConfig;

/// What a parameter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Vectors of tokens.
    Tokens,
    /// Vectors of places.
    Positions,
    /// The vector of the class token.
    Class,
    /// The patch embedding.
    Filters,
    /// Weight of a layer normalization.
    Norm,
    /// What is added, by a layer or by a layer normalization.
    Bias,
    /// Weight of a layer of queries, keys or values.
    Attention,
    /// Weight of the layer that widens a block's states.
    Up,
    /// Weight of the layer after a block's attention.
    AttentionOut,
    /// Weight of the layer that a block's wide states are narrowed by.
    Down,
    /// Weight of a projection to global vectors.
    Projection,
}

/// One of the two towers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tower {
    Text,
    Vision,
}

/// Where in its tower a parameter lies, from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What makes the first block's input.
    Input,
    /// A block, from 0.
    Block(usize),
    /// What makes the features of the last block's output.
    Output,
}

/// A parameter as files have it.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: Role,
    pub tower: Tower,
    pub depth: Depth,
}

struct List {
    tower: Tower,
    depth: Depth,
    parameters: Vec<Parameter>,
}

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role) {
        let (name, shape) = (name.into(), shape.to_vec());
        self.parameters.push(Parameter { name, shape, role, tower: self.tower, depth: self.depth });
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width], Role::Norm);
        self.add(format!("{name}.bias"), &[width], Role::Bias);
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, role: Role) {
        self.add(format!("{name}.weight"), &[outputs, inputs], role);
        self.add(format!("{name}.bias"), &[outputs], Role::Bias);
    }

    fn block(&mut self, tower: &str, index: usize, width: usize, inner: usize) {
        let name = format!("{tower}.encoder.layers.{index}");
        self.depth = Depth::Block(index);
        self.norm(&format!("{name}.layer_norm1"), width);
        for layer in ["q_proj", "k_proj", "v_proj"] {
            self.linear(&format!("{name}.self_attn.{layer}"), width, width, Role::Attention);
        }
        self.norm(&format!("{name}.layer_norm2"), width);
        self.linear(&format!("{name}.mlp.fc1"), inner, width, Role::Up);
        self.linear(&format!("{name}.self_attn.out_proj"), width, width, Role::AttentionOut);
        self.linear(&format!("{name}.mlp.fc2"), width, inner, Role::Down);
    }
}

/// All parameters of both towers.
pub fn parameters(config: &ClipConfig) -> Vec<Parameter> {
    let (text, vision) = (&config.text_config, &config.vision_config);
    let (t, v, p) = (text.hidden_size, vision.hidden_size, vision.patch_size);
    let mut list = List { tower: Tower::Text, depth: Depth::Input, parameters: Vec::new() };
    list.add("text_model.embeddings.token_embedding.weight", &[text.vocab_size, t], Role::Tokens);
    let places = [text.max_position_embeddings, t];
    list.add("text_model.embeddings.position_embedding.weight", &places, Role::Positions);
    (0..text.num_hidden_layers).for_each(|i| list.block("text_model", i, t, text.intermediate_size));
    list.depth = Depth::Output;
    list.norm("text_model.final_layer_norm", t);
    list.add("text_projection.weight", &[config.projection_dim, t], Role::Projection);
    (list.tower, list.depth) = (Tower::Vision, Depth::Input);
    list.add("vision_model.embeddings.class_embedding", &[v], Role::Class);
    list.add("vision_model.embeddings.patch_embedding.weight", &[v, 3, p, p], Role::Filters);
    list.add("vision_model.embeddings.position_embedding.weight", &[vision.patches(), v], Role::Positions);
    list.norm("vision_model.pre_layrnorm", v);
    (0..vision.num_hidden_layers).for_each(|i| list.block("vision_model", i, v, vision.intermediate_size));
    list.depth = Depth::Output;
    list.norm("vision_model.post_layernorm", v);
    list.add("visual_projection.weight", &[config.projection_dim, v], Role::Projection);
    list.parameters
}
