"""Cross-file completion: tasks from held-out repositories, and how well a model does them with other files in sight."""

from tritwise.evaluate.cross_file.scores import ARMS, CrossFileScore, LineScore, score
from tritwise.evaluate.cross_file.tasks import ContextFile, CrossFileTask, find_tasks

__all__ = ["ARMS", "ContextFile", "CrossFileScore", "CrossFileTask", "LineScore", "find_tasks", "score"]
