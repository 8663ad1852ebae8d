"""AdaTP (arXiv 2505.20100) and its baselines: training-free pruning of visual tokens in Video LLMs, exact and batched.

    model = adatp.load(path)
    visual = model.encode(pixels)
    results = adatp.Engine(model).run([adatp.Request("clip-0", visual, "Describe the video.", segments=(5, 3, 8))])

It runs unmodified transformers models and knows no Ray, no storage and no video file. Importing it changes nothing.
"""

from adatp.checkpoint import load
from adatp.controls import FrameDrop, NoPruning, RandomTokens, UniformTokens
from adatp.dycoke import DyCoke
from adatp.echoprune import EchoPrune
from adatp.engine import DoesNotFit, Engine, Request, Result
from adatp.evs import EVS
from adatp.families.llava_frames import LLAVA_VIDEO, ONEVISION, FrameLayout
from adatp.fastv import FastV
from adatp.flops import FlopsRatios, LLMShape, TowerShape, tower_flops
from adatp.likelihood import ChoiceLogprob
from adatp.method import AdaTP
from adatp.methods import METHODS, PAPER_SETTINGS
from adatp.model import VideoLLM
from adatp.onsets import Onsets
from adatp.pyramiddrop import PyramidDrop
from adatp.segments import representative_frames, segment_lengths, segment_relevance
from adatp.vcast import VCast
from adatp.vidcom2 import VidCom2
from adatp.visionzip import VisionZip
from adatp.visual import Ranking, Visual
from adatp.weights import CheckpointError, shapes

__all__ = [
    "EVS",
    "LLAVA_VIDEO",
    "METHODS",
    "ONEVISION",
    "PAPER_SETTINGS",
    "AdaTP",
    "CheckpointError",
    "ChoiceLogprob",
    "DoesNotFit",
    "DyCoke",
    "EchoPrune",
    "Engine",
    "FastV",
    "FlopsRatios",
    "FrameDrop",
    "FrameLayout",
    "LLMShape",
    "NoPruning",
    "Onsets",
    "PyramidDrop",
    "RandomTokens",
    "Ranking",
    "Request",
    "Result",
    "TowerShape",
    "UniformTokens",
    "VCast",
    "VidCom2",
    "VideoLLM",
    "VisionZip",
    "Visual",
    "load",
    "representative_frames",
    "segment_lengths",
    "segment_relevance",
    "shapes",
    "tower_flops",
]
