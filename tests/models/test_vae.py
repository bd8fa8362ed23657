"""The VAE: the counts of its 32 pixels, larger sizes by the same rule, latents from noise of outside."""

import pytest
import torch

from models.vae import VAE, Decoder, Encoder, sample
from tests.support.counts import with_statistics
from tests.support.host_reads import HostReads

LAYER = 128 * 128 * 9 + 128 + 4 * 128  # a convolution and its batch norm with running statistics


def test_at_32_pixels_it_has_the_known_counts_and_a_layer_more_at_each_doubling():
    with torch.device("meta"):
        for more, size in enumerate((32, 64, 128)):
            assert with_statistics(Encoder(size)) == 653_584 + more * LAYER
            assert with_statistics(Decoder(size)) == 700_803 + more * LAYER


@pytest.mark.parametrize("size", [32, 64, 128])
def test_it_gives_back_images_of_its_size(size):
    torch.manual_seed(0)
    net = VAE(size, latents=5, filters=6)
    with HostReads() as reads:
        images, mean, log_variance = net(torch.rand(3, 3, size, size) * 2 - 1, torch.randn(3, 5))
        (images.square().mean() + mean.square().mean() + log_variance.square().mean()).backward()
    assert reads.found == []
    assert images.shape == (3, 3, size, size)
    assert mean.shape == log_variance.shape == (3, 5)
    assert images.abs().max() <= 1
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert net.encoder.layers(torch.zeros(2, 3, size, size)).shape[2:] == (2, 2)


def test_without_noise_it_decodes_the_mean():
    torch.manual_seed(0)
    net = VAE(32, latents=4, filters=4).eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    images, mean, log_variance = net(x)
    torch.testing.assert_close(images, net.decoder(mean))
    torch.testing.assert_close(net(x, torch.zeros(2, 4))[0], images)
    assert (net(x, torch.ones(2, 4))[0] - images).abs().max() > 1e-4
    torch.testing.assert_close(sample(mean, log_variance, torch.ones(2, 4)) - mean, (log_variance / 2).exp())


def test_samples_have_the_mean_and_the_variance():
    torch.manual_seed(0)
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])
    drawn = sample(mean, log_variance, torch.randn(40_000, 2))
    torch.testing.assert_close(drawn.mean(0), mean[0], rtol=0, atol=0.05)
    torch.testing.assert_close(drawn.var(0), log_variance[0].exp(), rtol=0.03, atol=0)
