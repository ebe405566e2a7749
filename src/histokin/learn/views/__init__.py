"""Views of tiles: planned in NumPy from counted draws, made on the device in a few fused operations.

Geometry is one affine sampling; stain jitter one 3x3 matrix and offset a view in optical density; brightness, contrast,
saturation and hue one 3x3 matrix and offset of intensity. All views of a batch are made together.
"""

from histokin.learn.views.colour import STAINS, UNSTAINING
from histokin.learn.views.making import blur, make_views
from histokin.learn.views.plan import ViewPlan, central_plan, local_spec, plan_views

__all__ = ["STAINS", "UNSTAINING", "ViewPlan", "blur", "central_plan", "local_spec", "make_views", "plan_views"]
