//! Which parts of a block factors fold into.

use crate::sites::sub_module::SubModule;

/// What gives the values that are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Producer {
    /// A normalisation of the block by its name, such as `ln_1`: its gain, and its shift where it has one.
    Normalisation(&'static str),
    /// A matrix: its outputs from the first one on.
    Outputs {
        /// The matrix.
        module: SubModule,
        /// The first output that is divided.
        first: usize,
    },
}

/// A producer and the matrices that read nothing but what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FoldablePair {
    /// What gives the values.
    pub producer: Producer,
    /// What reads them. All of them take the same factors.
    pub consumers: &'static [SubModule],
    /// The number of factors.
    pub factors: usize,
    /// Values that are read in a row before they are read again.
    run: usize,
    /// How often they are read in a row.
    times: usize,
}

impl FoldablePair {
    /// A normalisation of `width` values, and the matrices behind it.
    pub fn behind_normalisation(name: &'static str, consumers: &'static [SubModule], width: usize) -> Self {
        Self { producer: Producer::Normalisation(name), consumers, factors: width, run: width, times: 1 }
    }

    /// A matrix of `width` outputs, and the matrices that read them.
    pub fn behind_matrix(module: SubModule, consumers: &'static [SubModule], width: usize) -> Self {
        Self { producer: Producer::Outputs { module, first: 0 }, consumers, factors: width, run: width, times: 1 }
    }

    /// The same where the outputs that are read start further behind. A normalisation gives all of its values.
    #[must_use]
    pub fn from_output(self, first: usize) -> Self {
        match self.producer {
            Producer::Outputs { module, .. } => Self { producer: Producer::Outputs { module, first }, ..self },
            Producer::Normalisation(_) => self,
        }
    }

    /// The same where each head of `run` values is read `times` times in a row, as grouped queries read values.
    #[must_use]
    pub fn shared_by_heads(self, run: usize, times: usize) -> Self {
        Self { run, times, ..self }
    }

    /// The number of inputs of the consumers.
    pub fn inputs(&self) -> usize {
        self.factors * self.times
    }

    /// The factor of an input of the consumers.
    ///
    /// ```
    /// use switchable_model::scaling::FoldablePair;
    /// use switchable_model::sites::sub_module::SubModule;
    ///
    /// const OUT: SubModule = SubModule::new("o_proj");
    /// // Two heads of two values, each of which serves two heads of queries.
    /// let values = FoldablePair::behind_matrix(SubModule::new("v_proj"), &[OUT], 4).shared_by_heads(2, 2);
    /// let factors: Vec<usize> = (0..values.inputs()).map(|input| values.factor_of(input)).collect();
    /// assert_eq!(factors, [0, 1, 0, 1, 2, 3, 2, 3]);
    /// ```
    pub fn factor_of(&self, input: usize) -> usize {
        input / (self.run * self.times) * self.run + input % self.run
    }

    /// The factor of every input of the consumers.
    pub(crate) fn of_inputs(&self, factors: &[f32]) -> Vec<f32> {
        (0..self.inputs()).map(|input| factors[self.factor_of(input)]).collect()
    }
}
