"""accelerate with its `MLflowTracker`: config, metrics, a figure, a file and a folder."""

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from matplotlib.figure import Figure

from programs.pauses import DOWN, UP, pause

set_seed(0)
accelerator = Accelerator(cpu=True, log_with="mlflow")
accelerator.init_trackers(
    "accelerate",
    config={"learning_rate": 0.1, "batch_size": 4, "layers": [2, 1]},
    init_kwargs={"mlflow": {"run_name": "line", "tags": {"team": "agents"}}},
)
tracker = accelerator.get_tracker("mlflow")
model = torch.nn.Linear(2, 1)
x = torch.randn(48, 2)
data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
batches = torch.utils.data.DataLoader(data, batch_size=4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
losses = []
for step, (inputs, expected) in enumerate(batches):
    if step == 3:
        pause(DOWN)
    elif step == 10:
        pause(UP)
    loss = torch.nn.functional.mse_loss(model(inputs), expected)
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    accelerator.log({"loss": losses[-1], "seen": 4 * (step + 1)}, step=step)
    if step == 6:
        figure = Figure()
        figure.subplots().plot(losses)
        tracker.log_figure(figure, "figures/loss.png")
        Path("notes.txt").write_text("half way\n", encoding="utf-8")
        tracker.log_artifact("notes.txt")
        Path("folder").mkdir()
        Path("folder", "weights.txt").write_text(str(model.weight.tolist()), encoding="utf-8")
        tracker.log_artifacts("folder", "weights")
accelerator.end_training()
