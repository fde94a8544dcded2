//! What a step runs: forward passes under plans, and how their losses combine.
//!
//! ```text
//! L = Σ_b w_b · (L_task(z_b) + Σ_{t ∈ teachers(b)} β_t · D(stop_grad(z_t), z_b))
//! ```
//!
//! `z_b` are the scores of branch `b`, `D` a [`Distance`], of several kinds of scores (starts and ends) the
//! mean, as in the loss of a span. A teacher is an earlier branch of the same
//! step; it gets no gradient from its pupils.
//!
//! Source of distillation among the widths of one model: InstantNet, arXiv:2104.10853.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use switchable_model::site_plan::SitePlan;

/// One forward and backward pass of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// Precision of every site.
    pub plan: SitePlan,
    /// Weight `w` of its loss.
    pub weight: f64,
    /// Earlier branches of the step whose scores it is drawn to.
    pub teachers: Vec<Teacher>,
    /// Whether the other branches may act against it.
    pub protection: Protection,
}

impl Branch {
    /// A branch without teachers and protection.
    pub fn new(plan: SitePlan, weight: f64) -> Self {
        Self { plan, weight, teachers: Vec::new(), protection: Protection::None }
    }
}

/// A branch that teaches another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Teacher {
    /// Its place in the step, before the pupil.
    pub branch: usize,
    /// Weight `β` of the distance.
    pub weight: f64,
    /// How scores are compared.
    pub distance: Distance,
}

impl Teacher {
    /// `β/k · Σ D(known, scores)` over the `k` kinds of scores of a pass, such as those of starts and of ends.
    ///
    /// The mean, as the loss of a span is the mean of that of its start and that of its end: `β` counts
    /// once, however many kinds of scores a task has.
    ///
    /// # Shapes
    ///
    /// `known`, `scores`: `[rows, classes]`, as many; a scalar `[1]` out.
    ///
    /// # Panics
    ///
    /// When there are no scores.
    pub fn pull<B: Backend>(
        &self,
        known: impl IntoIterator<Item = Tensor<B, 2>>,
        scores: &[Tensor<B, 2>],
    ) -> Tensor<B, 1> {
        let distances = known.into_iter().zip(scores).map(|(known, scores)| self.distance.of(known, scores.clone()));
        let sum = distances.reduce(|sum, distance| sum + distance).expect("a pass has scores");
        sum * (self.weight / scores.len() as f64)
    }
}

/// What happens to gradients of other branches that would raise a branch's loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// Gradients are added as they are.
    #[default]
    None,
    /// With `g` the gradient of the guarded branches and `h` that of the others, summed over the
    /// step: where `h·g < 0`, `h ← h − (h·g / g·g)·g` (A-GEM, arXiv:1812.00420; PCGrad,
    /// arXiv:2001.06782). To first order the others cannot raise the guarded loss.
    Guarded,
}

/// Distance between a teacher's scores `z_t` and a pupil's `z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// `1/n · Σ_rows Σ_c softmax(z_t)_c · (log softmax(z_t)_c − log softmax(z)_c)`, in nats.
    #[default]
    Kl,
    /// `1/(n·classes) · Σ (z_t − z)²`; classes that are impossible for both count as equal.
    Mse,
}

impl Distance {
    /// Distance between rows of scores.
    ///
    /// # Shapes
    ///
    /// `teacher`, `pupil`: `[rows, classes]`; a scalar `[1]` out.
    pub fn of<B: Backend>(self, teacher: Tensor<B, 2>, pupil: Tensor<B, 2>) -> Tensor<B, 1> {
        match self {
            Self::Kl => {
                let rows = teacher.dims()[0] as f64;
                let teacher = activation::log_softmax(teacher, 1);
                let pupil = activation::log_softmax(pupil, 1);
                (teacher.clone().exp() * (teacher - pupil)).sum() / rows
            }
            Self::Mse => {
                let difference = teacher - pupil;
                (difference.clone() * difference).mean()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn scores(values: [[f32; 3]; 2]) -> Tensor<Flex, 2> {
        Tensor::from_data(values, &burn::backend::flex::FlexDevice)
    }

    #[test]
    fn divergence_is_that_of_the_formula_and_ignores_impossible_classes() {
        let teacher = scores([[0.0, 2f32.ln(), -1e9], [0.0, 0.0, -1e9]]);
        let pupil = scores([[0.0, 0.0, -1e9], [0.0, 0.0, -1e9]]);
        let got: f64 = Distance::Kl.of(teacher, pupil).into_scalar().into();
        // (1/3)·ln(2/3) + (2/3)·ln(4/3) in the first of two rows.
        let expected = 0.5 * ((2.0f64 / 3.0).ln() / 3.0 + (4.0f64 / 3.0).ln() * 2.0 / 3.0);
        assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
    }

    #[test]
    fn the_weight_of_a_teacher_counts_once_for_starts_and_ends() {
        let teacher = Teacher { branch: 0, weight: 0.5, distance: Distance::Mse };
        let (known, start) = (scores([[0.0; 3]; 2]), scores([[2.0; 3]; 2]));
        let pull =
            |known: Vec<_>, scores: &[Tensor<Flex, 2>]| -> f64 { teacher.pull(known, scores).into_scalar().into() };
        // One kind of scores at a distance of 4, two of them, and one beside one that agrees.
        let one = pull(vec![known.clone()], std::slice::from_ref(&start));
        let both = pull(vec![known.clone(), known.clone()], &[start.clone(), start.clone()]);
        let half = pull(vec![known.clone(), known.clone()], &[start, known]);
        assert!(
            (one - 2.0).abs() < 1e-6 && (both - 2.0).abs() < 1e-6 && (half - 1.0).abs() < 1e-6,
            "{one} {both} {half}"
        );
    }

    #[test]
    fn squared_distance_is_a_mean_over_all_scores() {
        let got: f64 = Distance::Mse
            .of(scores([[1.0, 0.0, -1e9], [0.0, 0.0, 0.0]]), scores([[0.0, 2.0, -1e9], [0.0, 0.0, 1.0]]))
            .into_scalar()
            .into();
        assert!((got - 1.0).abs() < 1e-6, "{got}");
    }
}
