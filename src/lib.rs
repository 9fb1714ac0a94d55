//! Multimodal entity linking.
