"""Proof: figures, pictures and reports."""

from piu_lora.evidence.comparison import (
    Cell,
    Difference,
    Row,
    comparison_csv,
    comparison_picture,
    comparison_table,
    difference_table,
    differences_from,
    rows_of,
)
from piu_lora.evidence.cosines import cosine_histograms
from piu_lora.evidence.evaluation import (
    Evaluation,
    agreement,
    evaluate_images,
    evaluate_measured,
    quality_figures,
)
from piu_lora.evidence.figures import far_name
from piu_lora.evidence.gallery import FARS, Gallery, require_disjoint
from piu_lora.evidence.heatmap import heat_map
from piu_lora.evidence.measure import Measured, measure
from piu_lora.evidence.picture import before_after, face_grid, loss_curves, png_bytes, shown_places
from piu_lora.evidence.plan import Plan, PlannedPeople, Shot, plan_evaluation
from piu_lora.evidence.policy import Policy, judge, verdict_of
from piu_lora.evidence.probe import compare_probe, measure_probe, probe_facts
from piu_lora.evidence.report import summary

__all__ = [
    "FARS",
    "Cell",
    "Difference",
    "Evaluation",
    "Gallery",
    "Measured",
    "Plan",
    "PlannedPeople",
    "Policy",
    "Row",
    "Shot",
    "agreement",
    "before_after",
    "compare_probe",
    "comparison_csv",
    "comparison_picture",
    "comparison_table",
    "cosine_histograms",
    "difference_table",
    "differences_from",
    "evaluate_images",
    "evaluate_measured",
    "face_grid",
    "far_name",
    "heat_map",
    "judge",
    "loss_curves",
    "measure",
    "measure_probe",
    "plan_evaluation",
    "png_bytes",
    "probe_facts",
    "quality_figures",
    "require_disjoint",
    "rows_of",
    "shown_places",
    "summary",
    "verdict_of",
]
