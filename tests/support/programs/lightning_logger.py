"""Lightning with its `MLFlowLogger`, a checkpoint as artifact and calls on `logger.experiment`."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger

from programs.pauses import DOWN, UP, pause


class Line(lightning.LightningModule):  # type: ignore[misc]  # lightning is not followed
    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
        self.rate = rate

    def _loss(self, batch: Any) -> Any:
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x), y)

    def training_step(self, batch: Any, index: int) -> Any:
        loss = self._loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self._loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


class Pauses(lightning.Callback):  # type: ignore[misc]
    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step == 3:
            pause(DOWN)
        elif trainer.global_step == 10:
            pause(UP)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        logger = trainer.logger
        epoch = trainer.current_epoch
        logger.experiment.log_dict(logger.run_id, {"epoch": epoch}, f"epochs/{epoch}.json")
        logger.experiment.set_tag(logger.run_id, "epochs", str(epoch + 1))


lightning.seed_everything(0, verbose=False)
x = torch.randn(16, 2)
data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
batches = torch.utils.data.DataLoader(data, batch_size=4)
trainer = lightning.Trainer(
    max_epochs=3,
    accelerator="cpu",
    logger=MLFlowLogger("lightning", run_name="line", tags={"team": "agents"}, log_model=True),
    callbacks=[Pauses(), ModelCheckpoint("checkpoints", monitor="val_loss")],
    log_every_n_steps=1,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Line(), batches, batches)
