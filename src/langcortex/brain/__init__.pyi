from .recording import Cleaning, Recording, Responses, read_recording
from .space import Space, volume_space

__all__ = ["Cleaning", "Recording", "Responses", "Space", "read_recording", "volume_space"]
