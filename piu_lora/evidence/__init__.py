"""Proof: figures, pictures and reports."""

from piu_lora.evidence.comparison import Cell, Row, comparison_csv, comparison_picture, comparison_table, rows_of
from piu_lora.evidence.cosines import cosine_histograms
from piu_lora.evidence.evaluation import Evaluation, Plan, evaluate_images, plan_evaluation
from piu_lora.evidence.gallery import FARS, Gallery, require_disjoint
from piu_lora.evidence.heatmap import heat_map
from piu_lora.evidence.picture import before_after, face_grid, loss_curves, png_bytes
from piu_lora.evidence.probe import compare_probe, measure_probe, probe_facts
from piu_lora.evidence.report import aligned, missed, report_json, report_table, summary

__all__ = [
    "FARS",
    "Cell",
    "Evaluation",
    "Gallery",
    "Plan",
    "Row",
    "aligned",
    "before_after",
    "compare_probe",
    "comparison_csv",
    "comparison_picture",
    "comparison_table",
    "cosine_histograms",
    "evaluate_images",
    "face_grid",
    "heat_map",
    "loss_curves",
    "measure_probe",
    "missed",
    "plan_evaluation",
    "png_bytes",
    "probe_facts",
    "report_json",
    "report_table",
    "require_disjoint",
    "rows_of",
    "summary",
]
