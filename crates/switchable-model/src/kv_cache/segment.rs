//! Keys and values of consecutive tokens that are kept at the same bits.

use std::ops::Range;

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};

use quant_kernels::{packed::packed_rows::PackedRows, spec::bit_width::BitWidth};

use crate::parameters::floats;

/// How the rows of a segment are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsForm {
    /// In floats of a type.
    Floats(DType),
    /// In codes, and read as floats of a type.
    Codes(BitWidth, DType),
}

/// Keys and values of consecutive tokens of one block.
#[derive(Debug, Clone)]
pub(super) struct Segment<B: Backend> {
    first: usize,
    form: RowsForm,
    keys: Rows<B>,
    values: Rows<B>,
}

impl<B: Backend> Segment<B> {
    /// Room for `room` tokens from `first` on.
    ///
    /// # Shapes
    ///
    /// `dims`: sequences, heads, room, width.
    pub(super) fn new(first: usize, form: RowsForm, dims: [usize; 4], device: &B::Device) -> Self {
        let [keys, values] = [(); 2].map(|()| Rows::new(form, dims, device));
        Self { first, form, keys, values }
    }

    /// The token that its room starts with.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    pub(super) fn form(&self) -> RowsForm {
        self.form
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes()
    }

    /// Writes keys and values of the tokens from `token` on.
    ///
    /// # Shapes
    ///
    /// `[sequences, heads, tokens, width]` each.
    pub(super) fn write(&mut self, token: usize, keys: Tensor<B, 4>, values: Tensor<B, 4>) {
        self.keys.write(token - self.first, keys);
        self.values.write(token - self.first, values);
    }

    /// Keys and values of some tokens of some sequences.
    ///
    /// # Shapes
    ///
    /// `[sequences, heads, tokens, width]` each, out.
    pub(super) fn read(&self, sequences: Range<usize>, tokens: Range<usize>, device: &B::Device) -> [Tensor<B, 4>; 2] {
        let tokens = tokens.start - self.first..tokens.end - self.first;
        [&self.keys, &self.values].map(|rows| rows.read(self.form, sequences.clone(), tokens.clone(), device))
    }

    pub(super) fn keep_sequences(&mut self, sequences: &[usize], device: &B::Device) {
        for rows in [&mut self.keys, &mut self.values] {
            rows.keep_sequences(sequences, device);
        }
    }
}

/// Keys or values, a row for each sequence, head and token.
#[derive(Debug, Clone)]
enum Rows<B: Backend> {
    /// `[sequences, heads, room, width]`; taken out while it is written.
    Floats(Option<Tensor<B, 4>>),
    Codes {
        rows: PackedRows,
        heads: usize,
        room: usize,
    },
}

impl<B: Backend> Rows<B> {
    fn new(form: RowsForm, [sequences, heads, room, width]: [usize; 4], device: &B::Device) -> Self {
        match form {
            RowsForm::Floats(dtype) => {
                Self::Floats(Some(Tensor::zeros([sequences, heads, room, width], (device, dtype))))
            }
            RowsForm::Codes(bits, _) => match PackedRows::zeros([sequences * heads * room, width], bits) {
                Ok(rows) => Self::Codes { rows, heads, room },
                Err(error) => panic!("kv cache: {error}"),
            },
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Floats(tensor) => tensor.iter().map(|t| t.shape().num_elements() * t.dtype().size()).sum(),
            Self::Codes { rows, .. } => rows.bytes(),
        }
    }

    fn write(&mut self, at: usize, new: Tensor<B, 4>) {
        let [sequences, heads, tokens, width] = new.dims();
        match self {
            Self::Floats(buffer) => {
                // Taken out, so that it is written where it lies.
                let full = buffer.take().expect("a buffer is put back after every write");
                *buffer = Some(full.slice_assign([0..sequences, 0..heads, at..at + tokens, 0..width], new));
            }
            Self::Codes { rows, room, .. } => {
                let values = floats(new.into_data());
                for (head, values) in values.chunks_exact((tokens * width).max(1)).enumerate() {
                    rows.write(head * *room + at, values);
                }
            }
        }
    }

    fn read(&self, form: RowsForm, sequences: Range<usize>, tokens: Range<usize>, device: &B::Device) -> Tensor<B, 4> {
        match self {
            Self::Floats(buffer) => {
                let full = buffer.clone().expect("a buffer is put back after every write");
                let [_, heads, _, width] = full.dims();
                full.slice([sequences, 0..heads, tokens, 0..width])
            }
            Self::Codes { rows, heads, room } => {
                let RowsForm::Codes(_, dtype) = form else { unreachable!("codes are of a form that has them") };
                let shape = [sequences.len(), *heads, tokens.len(), rows.width()];
                let values = rows.blocks(*room, sequences.start * heads..sequences.end * heads, &tokens);
                Tensor::from_data(TensorData::new(values, shape), (device, dtype))
            }
        }
    }

    fn keep_sequences(&mut self, sequences: &[usize], device: &B::Device) {
        match self {
            Self::Floats(buffer) => {
                let full = buffer.take().expect("a buffer is put back after every write");
                let indices: Vec<i64> = sequences.iter().map(|&sequence| sequence as i64).collect();
                let count = indices.len();
                let indices = Tensor::<B, 1, Int>::from_data(TensorData::new(indices, [count]), device);
                *buffer = Some(full.select(0, indices));
            }
            Self::Codes { rows, heads, room } => {
                let of_each = *heads * *room;
                let kept = PackedRows::zeros([sequences.len() * of_each, rows.width()], rows.bits());
                let mut kept = kept.expect("rows of the same width are there");
                for (index, &sequence) in sequences.iter().enumerate() {
                    kept.copy_from(index * of_each, rows, sequence * of_each..(sequence + 1) * of_each);
                }
                *rows = kept;
            }
        }
    }
}
