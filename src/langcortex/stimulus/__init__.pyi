from .story import Story, make_story, read_story
from .written_text import add_sentence_marks, align_written_text

__all__ = ["Story", "add_sentence_marks", "align_written_text", "make_story", "read_story"]
