"""A VGG for grey faces of 48 pixels (FER2013), and a deeper one, without classifier.

The plan is that of Khaireddin and Chen, Facial Emotion Recognition: State of the Art Performance on FER2013
(2021, arXiv 2105.03588): four stages of two blocks (3x3 convolution, batch norm, ReLU) and a max-pool, then
two dense layers with ReLU below that of the classes. Channels double by stage from 64, as in Simonyan and
Zisserman (2015); the deeper one has the first ten convolutions of their configuration D. The dense layers
have 16 widths, 1024 (theirs 4096, for 1000 classes), and dropout 0.5 behind each as theirs.

    vgg       2 x 64, 2 x 128, 2 x 256, 2 x 512, dense 1024, dense 1024
    vgg_deep  2 x 64, 2 x 128, 3 x 256, 3 x 512, dense 1024, dense 1024
"""

from torch import Tensor, nn

from models.googlenet import initialise
from models.grid import grey, to_grid

PLAIN, DEEP = (2, 2, 2, 2), (2, 2, 3, 3)  # convolutions of each stage
WIDTH = 64
SIDE = 3  # of the last map for images of 48 pixels
DROPOUT = 0.5


class VGG(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], at least 16 pixels, made grey -> features [n, 16 * width].

    stages: convolutions of each; width: channels of the first one. The last map of images that are not of 48
    pixels is averaged, or repeated, to 3 x 3 (`models/grid.py`).
    """

    def __init__(self, stages: tuple[int, ...], width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for stage, count in enumerate(stages):
            outputs = width * 2**stage
            for _ in range(count):
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                ]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.layers = nn.Sequential(*layers)
        self.features = dense = 16 * width
        self.dense = nn.Sequential(
            nn.Linear(inputs * SIDE * SIDE, dense),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
            nn.Linear(dense, dense),
            nn.ReLU(inplace=True),
            nn.Dropout(DROPOUT),
        )
        initialise(self)

    @property
    def last_map(self) -> nn.Module:
        """The module with the last feature map [n, c, h, w] as its output: where the network looks."""
        return self.layers[-2]  # before the last pool

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(to_grid(self.layers(grey(images)), SIDE).flatten(1))
