from .story import Story, make_story, read_story
from .written_text import with_text, written

__all__ = ["Story", "make_story", "read_story", "with_text", "written"]
