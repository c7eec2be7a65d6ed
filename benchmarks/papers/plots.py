"""Logs of runs and their plots, without a screen."""
from __future__ import annotations

import csv
import math
from pathlib import Path

import matplotlib

from benchmarks.report import whole_file

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import (  # noqa: E402
    AutoLocator,
    LogLocator,
    MaxNLocator,
)


def read_metrics(out: Path) -> dict[str, list[tuple[float, float]]]:
    """Each column of metrics.csv as (epoch, value), the last one of an
    epoch.
    """
    series: dict[str, dict[int, float]] = {}
    with (Path(out) / 'metrics.csv').open() as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key not in ('epoch', 'step') and row['epoch']:
                    series.setdefault(key, {})[int(row['epoch'])] = float(
                        value)
    return {key: sorted(rows.items()) for key, rows in series.items()}


def save_figure(figure, path: Path) -> Path:
    """Writes a figure whole or not at all."""
    with whole_file(path) as part:
        figure.savefig(part, dpi=150, format='png')
    plt.close(figure)
    return path


def plot_learning_curve(out: Path, columns: dict[str, str], ylabel: str,
                        yscale: str = 'log') -> Path:
    """Plots columns of metrics.csv (name -> label) against the epoch."""
    metrics = read_metrics(out)
    figure, axes = plt.subplots(figsize=(5, 3.5), constrained_layout=True)
    for key, label in columns.items():
        if key in metrics:
            epoch, values = zip(*metrics[key])
            axes.plot([e + 1 for e in epoch], values, marker='.',
                      label=f'{label}, {values[-1]:.4g} in the end')
    axes.set(xlabel='epoch', ylabel=ylabel, yscale=yscale)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if yscale == 'log':
        label_log_axis(axes)
    axes.grid(alpha=0.3, which='both')
    axes.legend(fontsize=8)
    return save_figure(figure, Path(out) / 'learning_curve.png')


def label_log_axis(axes) -> None:
    """Several numbers beside a logarithmic axis, however short or long."""
    low, high = axes.get_ylim()
    decades = math.log10(high / low) if low > 0 else 1.
    axes.yaxis.set_major_locator(
        AutoLocator() if decades < 1 else
        LogLocator(subs=(1., 2., 5.) if decades < 3 else (1., )))
    axes.yaxis.set_major_formatter('{x:g}')
    axes.yaxis.set_minor_formatter('')


def plot_predictions(out: Path, predicted, true, unit: str,
                     title: str) -> Path:
    """Plots predicted against true values."""
    figure, axes = plt.subplots(figsize=(4, 4), constrained_layout=True)
    low, high = float(true.min()), float(true.max())
    axes.plot([low, high], [low, high], color='0.7', linewidth=1)
    axes.scatter(true, predicted, s=6, alpha=0.6, linewidths=0)
    axes.set(xlabel=f'true [{unit}]', ylabel=f'predicted [{unit}]',
             title=title)
    return save_figure(figure, Path(out) / 'predictions.png')


def plot_confusion(out: Path, matrix, classes: list[str], title: str
                   ) -> Path:
    """Plots the share of each true class (rows) given each label."""
    share = matrix / matrix.sum(1, keepdims=True).clip(min=1)
    size = 2 + 0.18 * len(classes)
    figure, axes = plt.subplots(figsize=(size + 0.6, size),
                                constrained_layout=True)
    image = axes.imshow(share, vmin=0, vmax=1, cmap='viridis')
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=90, fontsize=7)
    axes.set_yticks(places, classes, fontsize=7)
    axes.set(xlabel='predicted', ylabel='true', title=title)
    figure.colorbar(image, shrink=0.8, label='share of the true class')
    return save_figure(figure, Path(out) / 'confusion.png')
